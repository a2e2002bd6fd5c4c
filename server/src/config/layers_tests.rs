use std::io::Write;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    _options: Options,
}

fn resolved(arguments: &[&str]) -> Result<Effective, String> {
    let arguments = std::iter::once("guidon").chain(arguments.iter().copied());
    // The variables of whoever runs the tests stay out of them.
    let command = <Serve as clap::CommandFactory>::command().mut_args(|arg| arg.env(None));
    let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
    resolve(&matches).map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

#[test]
fn a_flag_wins_over_the_file_and_that_over_the_default() {
    let file = file("[network]\nlisten = \"127.0.0.1:1\"\n[limits]\nmax_body_bytes = 5\nrequest_timeout = 7\n");
    let path = file.path().to_str().expect("a path");
    let effective = resolved(&["--config", path, "--max-body-bytes", "6"]).expect("it is right");
    assert_eq!(effective.config.network.listen.to_string(), "127.0.0.1:1");
    assert_eq!(effective.config.limits.max_body_bytes, 6);
    assert_eq!(effective.config.limits.request_timeout.as_secs(), 7);
    let from = |key: &str| effective.settings.iter().find(|it| it.key == key).expect("an option").source.to_string();
    assert_eq!(from("listen"), format!("{path} line 2"));
    assert_eq!(from("max_body_bytes"), "--max-body-bytes");
    assert_eq!(from("data"), "default");
}

#[test]
fn pairs_are_looked_at_when_everything_is_together() {
    let file = file("[network]\ntls_cert = \"c.pem\"\n");
    let path = file.path().to_str().expect("a path");
    let alone = resolved(&["--config", path]).expect_err("the key is missing");
    assert!(alone.contains("--tls-cert needs --tls-key"), "{alone}");
    let both = resolved(&["--config", path, "--tls-key", "k.pem", "--behind-proxy", "10.0.0.0/8,fd00::/8"]);
    assert_eq!(both.expect("they are a pair").config.network.behind_proxy.len(), 2);
}

#[test]
fn a_missing_file_is_refused_by_name() {
    let error = resolved(&["--config", "/nonexistent/guidon.toml"]).expect_err("there is none");
    assert!(error.contains("/nonexistent/guidon.toml") && error.contains("GUIDON_CONFIG"), "{error}");
}
