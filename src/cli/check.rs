//! `dormouse check`: is the configuration right, can its certificates and its key be used, and does its broker live?

use std::fmt::Write as _;

use clap::Args;

use super::{
    Failure,
    certs::{self, Present},
    config_args::ConfigArgs,
    live, say,
};
use crate::config::Config;

/// What is to be checked.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints the configuration in force, defaults included, as a file that --config takes
    #[arg(short = 'T', long)]
    show: bool,
    /// Asks the broker that runs with this configuration whether it makes progress (/livez)
    #[arg(long, conflicts_with = "show")]
    live: bool,
}

/// Prints one line when all is right, or the configuration if that is asked for; else returns every mistake.
pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let config = args.config.load()?;
    if args.live {
        return live::ask(&config.admin).map(|answer| say(&answer));
    }
    // Before the certificates: who looks for the wrong one wants to see where it is looked for.
    if args.show {
        say(&shown(&config, &args.config.source())?);
    }
    let problems = problems(&config);
    if !problems.is_empty() {
        return Err(Failure::Runtime(problems.join("\ndormouse: ")));
    }
    if !args.show {
        say(&verdict(&config, &args.config.source()));
    }
    Ok(())
}

/// The configuration as a file; the comment at its top says where it came from.
fn shown(config: &Config, source: &str) -> Result<String, Failure> {
    let toml = config.to_toml().map_err(|error| Failure::Runtime(error.to_string()))?;
    // A name with a line break in it must not end the comment.
    let source = source.replace(char::is_control, "?");
    Ok(format!("# {source}, with flags and variables on top.\n{toml}"))
}

fn verdict(config: &Config, source: &str) -> String {
    let listeners = match config.listeners.len() {
        1 => "1 listener".to_owned(),
        n => format!("{n} listeners"),
    };
    let mut text = format!("{source}: ok, {listeners}, data in {}\n", config.data.display());
    if let Some(certs) = config.development_certs().filter(|dir| matches!(certs::present(dir), Present::None))
    {
        let _ = writeln!(text, "the first start makes development certificates in {}", certs.display());
    }
    text
}

/// What a start would stumble over that the configuration only names.
fn problems(config: &Config) -> Vec<String> {
    let mut problems = certificate_problems(config);
    problems.extend(config.store.key.load().err().map(|error| error.to_string()));
    problems
}

fn certificate_problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let development = config.development_certs();
    match development.map(certs::present) {
        Some(Present::Some(half)) => return vec![half],
        Some(Present::All | Present::None) | None => {}
    }
    for listener in &config.listeners {
        let Some(tls) = listener.socket.transport.tls() else { continue };
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
