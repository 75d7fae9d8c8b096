//! `dormouse check`: is the configuration right, and can its certificates be used?

use std::fmt::Write as _;

use super::{
    Failure,
    certs::{self, Present},
    config_args::ConfigArgs,
    say,
};
use crate::{config::Config, net::listener::Transport};

/// Prints one line when all is right; else returns every mistake.
pub fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let config = args.load()?;
    let problems = certificate_problems(&config);
    if !problems.is_empty() {
        return Err(Failure::Runtime(problems.join("\ndormouse: ")));
    }
    let listeners = match config.listeners.len() {
        1 => "1 listener".to_owned(),
        n => format!("{n} listeners"),
    };
    let source = args.source();
    let mut text = format!("{source}: ok, {listeners}, data in {}\n", config.data.display());
    if let Some(certs) = config.development_certs().filter(|dir| matches!(certs::present(dir), Present::None))
    {
        let _ = writeln!(text, "the first start makes development certificates in {}", certs.display());
    }
    say(&text);
    Ok(())
}

fn certificate_problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let development = config.development_certs();
    match development.map(certs::present) {
        Some(Present::Some(half)) => return vec![half],
        Some(Present::All | Present::None) | None => {}
    }
    for listener in &config.listeners {
        let Transport::Tls(tls) = &listener.socket.transport else { continue };
        // Those that are not made yet are no mistake.
        let to_be_made = development.is_some_and(|dir| {
            tls.certificate.starts_with(dir) && matches!(certs::present(dir), Present::None)
        });
        if !to_be_made {
            problems
                .extend(tls.problems().iter().map(|why| format!("listener {}: {why}", listener.socket.name)));
        }
    }
    problems
}
