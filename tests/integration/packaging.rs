//! What is shipped beside the binary fits it.

use std::{fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn everything_the_dockerfile_copies_is_there() {
    let dockerfile = fs::read_to_string(root().join("docker/Dockerfile")).unwrap();
    let mut copied = 0;
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let (_, sources) = words.split_last().unwrap();
        for source in sources {
            assert!(root().join(source).exists(), "{source} in `{line}`");
            copied += 1;
        }
    }
    assert!(copied > 2, "the Dockerfile was not understood");
}

#[test]
fn the_container_s_configuration_stays_in_its_volume() {
    let text = fs::read_to_string(root().join("docker/dormouse.toml")).unwrap();
    let config = dormouse::config::Config::from_toml(
        Path::new("docker/dormouse.toml"),
        &text,
        &dormouse::config::Overrides::default(),
    )
    .unwrap();
    let dockerfile = fs::read_to_string(root().join("docker/Dockerfile")).unwrap();
    let volume = dockerfile.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap();
    assert!(config.data.starts_with(volume), "{:?}", config.data);
    assert!(config.development_certs().unwrap().starts_with(volume), "{:?}", config.certs);
}
