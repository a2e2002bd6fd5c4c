use super::*;

fn read_text(text: &str) -> Result<BTreeMap<String, InFile>, Vec<String>> {
    let problems = |problems: Vec<FileProblem>| problems.iter().map(ToString::to_string).collect();
    parse(Path::new("guidon.toml"), text).map_err(problems)
}

#[test]
fn every_option_has_one_name_in_all_its_forms() {
    let mut seen = std::collections::BTreeSet::new();
    for known in known() {
        let variable = known.arg.get_env().map(|name| name.to_string_lossy().into_owned());
        assert_eq!(variable.as_deref(), Some(&*known.variable), "--{} and its variable", known.flag);
        assert!(!known.section.is_empty(), "--{} stands below no heading, so in no section", known.flag);
        assert!(seen.insert(known.key.clone()), "{} is the key of two options", known.key);
    }
    assert!(seen.len() > 20);
}

#[test]
fn every_secret_has_an_option_for_its_file() {
    for secret in SECRETS {
        let file = format!("{}_file", secret.key);
        let option = known().into_iter().find(|known| known.key == file).expect("an option");
        assert_eq!((option.section.as_str(), format!("--{}", option.flag)), (secret.section, secret.flag.to_owned()));
        assert!(!known().iter().any(|known| known.key == secret.key), "{} must be no option", secret.key);
    }
}

#[test]
fn all_forms_of_values_are_read() {
    let text = r#"
        [network]
        listen = "127.0.0.1:9000"
        behind_proxy = ["10.0.0.0/8", "fd00::/8"]
        [limits]
        max_body_bytes = 1_000
        max_connections = 0x10
        request_timeout = 2.5
        [log]
        log_format = "json"
    "#;
    let read = read_text(text).expect("it is right");
    let values = |key: &str| read[key].values.join(" ");
    assert_eq!(values("listen"), "127.0.0.1:9000");
    assert_eq!(values("behind_proxy"), "10.0.0.0/8 fd00::/8");
    assert_eq!((values("max_body_bytes"), values("max_connections")), ("1000".to_owned(), "16".to_owned()));
    assert_eq!((values("request_timeout"), values("log_format")), ("2.5".to_owned(), "json".to_owned()));
    assert_eq!(read["listen"].line, 3);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let text = "listen = \"127.0.0.1:1\"\n[network]\nlisen = \"a\"\ntls_cert = 3\nbehind_proxy = [\"ten\", 4]\n\
                max_body_bytes = 5\n[limits]\nmax_body_bytes = \"8\"\nmax_writes_per_second = -1\n[lgo]\n[log]\nlog_format = \"xml\"\n\
                [identity]\nadmin_token = \"x\"\n";
    let problems = read_text(text).unwrap_err();
    let expected = [
        "guidon.toml:1:1: listen belongs below [network]",
        "guidon.toml:3:1: there is no lisen; did you mean listen?",
        "guidon.toml:4:12: tls_cert: expected a string, found a whole number",
        "guidon.toml:5:16: behind_proxy: expected a list of strings, found a whole number in it",
        "guidon.toml:6:1: max_body_bytes belongs below [limits]",
        "guidon.toml:8:18: max_body_bytes: expected a number, found a string",
        "guidon.toml:9:25: max_writes_per_second: \"-1\" is refused: ",
        "guidon.toml:10:2: there is no section [lgo]; ",
        "guidon.toml:12:14: log_format: \"xml\" is refused: expected one of text, json",
        "guidon.toml:14:1: admin_token is a secret, ",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n  expected {expected}");
    }
    assert!(problems[9].contains("give admin_token_file below [identity]"), "{}", problems[9]);
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let problems = read_text("[network]\nlisten = \"a\nlisten = 2\n").unwrap_err();
    assert!(problems[0].starts_with("guidon.toml:2:"), "{problems:?}");
    let twice = read_text("[network]\nlisten = \"[::1]:1\"\nlisten = \"[::1]:2\"\n").unwrap_err();
    assert!(twice[0].starts_with("guidon.toml:3:") && twice[0].contains("duplicate"), "{twice:?}");
}

#[test]
fn nothing_panics_whatever_the_file_holds() {
    use proptest::prelude::*;
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(text in "[\\[\\]a-z_=\"'0-9{}.,\\n #é-]{0,80}")| {
        let _ = parse(Path::new("f"), &text);
    });
}
