//! What files are read as, and what is said of wrong ones.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::cli::CliError;

fn parse(text: &str) -> Result<Value, Vec<String>> {
    let tree = reader::read(text.as_bytes(), 0, &mut MAX_VALUES.clone());
    match tree {
        Ok(tree) => Ok(tree.map_or(Value::Null, |tree| tree.to_value())),
        Err(problems) => {
            Err(problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect())
        }
    }
}

/// Reads files given as (path, text).
fn read(files: &[(&str, &str)]) -> Result<Document, CliError> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Document::read(folder.path()).and_then(|document| document.check().map(|()| document))
}

fn problems(files: &[(&str, &str)]) -> Vec<String> {
    match read(files) {
        Err(CliError::Files { problems, .. }) => problems
            .iter()
            .map(|line| {
                let starts = files.iter().filter_map(|(name, _)| line.find(name));
                line[starts.min().unwrap_or_default()..].to_owned()
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_are_read_as_yaml_1_2_has_them() {
    let read = parse(
        "on: yes\nyes: on\nno: no\noff: Off\na: true\nb: false\nc: null\nd: ~\ne:\nf: 12\ng: -0.5\nh: 1e3\ni: 12:30\n\
         j: 2026-12-31\nk: 1.2.3\nl: 'true'\nm: \"5\"\nn: 1_000\no: '0x1F'\np: ==\nq: 9007199254740992\nr: 1.50\n",
    );
    let expected = json!({
        "on": "yes", "yes": "on", "no": "no", "off": "Off", "a": true, "b": false, "c": null, "d": null, "e": null,
        "f": 12, "g": -0.5, "h": 1000.0, "i": "12:30", "j": "2026-12-31", "k": "1.2.3", "l": "true", "m": "5", "n": "1_000",
        "o": "0x1F", "p": "==", "q": 9_007_199_254_740_992_u64, "r": 1.5,
    });
    assert_eq!(read, Ok(expected));
    let blocks = "text: |\n  two\n  lines\nfolded: >-\n  one\n  line\nlist:\n- a\n- b: {c: [1, two]}\n";
    let expected = json!({"text": "two\nlines\n", "folded": "one line", "list": ["a", {"b": {"c": [1, "two"]}}]});
    assert_eq!(parse(blocks), Ok(expected));
    assert_eq!(parse("# nothing\n"), Ok(Value::Null));
    assert_eq!(parse("\u{feff}---\na: 1\n...\n"), Ok(json!({"a": 1})));
    assert_eq!(parse("a: 1\r\nb: 2\r\n"), Ok(json!({"a": 1, "b": 2})));
}

#[test]
fn what_readers_take_differently_is_refused_with_place_and_remedy() {
    let mut wrong = Vec::new();
    for (text, place, part) in [
        ("a: True", "1:4", "write true, or \"True\" if a text is meant"),
        ("a: NULL", "1:4", "write null"),
        ("a: 0x1F", "1:4", "decimal"),
        ("a: 0o17", "1:4", "decimal"),
        ("a: 017", "1:4", "decimal"),
        ("a: +1", "1:4", "decimal"),
        ("a: .5", "1:4", "decimal"),
        ("a: 5.", "1:4", "decimal"),
        ("a: .nan", "1:4", "not a number that a flag can serve"),
        ("a: -.inf", "1:4", "not a number that a flag can serve"),
        ("a: 9007199254740993", "1:4", "2^53"),
        ("a: 1e999", "1:4", "2^53"),
        ("a: &x 1\nb: 2", "1:4", "anchors"),
        ("a: &x\n  b: 2", "1:4", "anchors"),
        ("a: *x", "1:4", "aliases"),
        ("<<: {a: 1}", "1:1", "merge keys"),
        ("a: !!str 1", "1:4", "tags"),
        ("a: !include x", "1:4", "tags"),
        ("1: a", "1:1", "write \"1\" in quotes"),
        ("true: a", "1:1", "write \"true\" in quotes"),
        (": a", "1:1", "a key is missing"),
        ("? [a]\n: b", "1:3", "a key is a text"),
        ("{a: {{ x }}}", "1:6", "a key is a text"),
        ("a: 1\nb: 2\na: 3", "3:1", "first in line 1"),
        ("a: 1\n---\nb: 2", "2:1", "a second document"),
        ("%YAML 1.1\n---\na: 1", "1:1", "directives"),
        ("a:\n\tb: 1", "2:", "spaces, not with tabs"),
        ("a: b: c", "1:", "needs quotes"),
        ("a: [1, 2", "2:1", "this is not YAML"),
        ("a: \u{7}", "1:4", "U+0007"),
        ("a: 1\nb: x\u{9b}y", "2:5", "U+009B"),
    ] {
        let found = parse(text).err().unwrap_or_default();
        if !found.first().is_some_and(|first| first.starts_with(place) && first.contains(part)) {
            wrong.push(format!("{text:?} at {place}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let not_text = reader::read(b"a: 1\nb: \xff", 0, &mut 100).unwrap_err();
    assert_eq!((not_text[0].place.line, not_text[0].place.column), (2, 4));
    assert!(not_text[0].message.contains("UTF-8"), "{not_text:?}");
}

#[test]
fn nesting_and_values_are_bounded() {
    let deep = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&deep(MAX_DEPTH - 1)).is_ok());
    assert!(parse(&deep(MAX_DEPTH)).unwrap_err()[0].contains("nested deeper"));
    let too_many = reader::read(b"[1, 2, 3]", 0, &mut 3).unwrap_err();
    assert!(too_many[0].message.contains("values"), "{too_many:?}");
}

#[test]
fn all_that_is_wrong_in_a_file_is_said_at_once() {
    let found = parse("a: True\nb: 017\nb: 2\n3: x\n").unwrap_err();
    assert_eq!(found.len(), 4, "{found:?}");
    let many = "a: 1\n".repeat(1_000);
    assert_eq!(parse(&many).unwrap_err().len(), MAX_PROBLEMS + 1);
}

#[test]
fn files_are_one_document() {
    let document = read(&[
        ("environments.yaml", "environments:\n  staging: {tier: staging}\n"),
        ("flags/a.yaml", "flags:\n  a: {kind: boolean}\n"),
        ("flags/b.yml", "flags:\n  b: {kind: string}\n"),
        ("segments/production.yaml", "segments:\n  production:\n    beta: {name: Beta}\n"),
        ("segments/more.yaml", "segments:\n  production:\n    staff: {name: Staff}\n"),
        ("empty.yaml", "# nothing yet\n"),
        ("none.yaml", "flags:\n"),
        (".hidden/x.yaml", "not: read"),
        ("notes.txt", "not: read"),
    ])
    .unwrap();
    let expected = json!({
        "environments": {"staging": {"tier": "staging"}},
        "flags": {"a": {"kind": "boolean"}, "b": {"kind": "string"}},
        "segments": {"production": {"staff": {"name": "Staff"}, "beta": {"name": "Beta"}}},
    });
    assert_eq!(document.to_value(), expected);
}

#[test]
fn the_same_thing_in_two_files_is_refused_with_both_places() {
    let found = problems(&[
        ("1.yaml", "flags:\n  a: {}\nsegments:\n  s:\n    x: {}\n"),
        ("2.yaml", "flags:\n  b: {}\n  a: {}\nsegments:\n  s:\n    x: {}\n  t:\n    x: {}\nflag: {}\n"),
        ("3.yaml", "- a\n"),
        ("4.yaml", "flags: [a]\n"),
    ]);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found[0].starts_with("2.yaml:3:3: `flags.a` is at ") && found[0].contains("1.yaml:2:3"), "{found:#?}");
    assert!(found[1].contains("`segments.s.x`"), "{found:#?}");
    assert!(found[2].contains("`flags` is probably meant"), "{found:#?}");
    assert!(found[3].starts_with("3.yaml:1:1: this is a list"), "{found:#?}");
    assert!(found[4].contains("`flags` is a list"), "{found:#?}");
}

#[test]
fn what_the_server_says_is_shown_in_the_files() {
    let mut document = read(&[("a.yaml", "flags:\n  a:\n    kind: boolean\n    typo: 1\n    tags: [x, 5]\n")]).unwrap();
    let errors = [
        json!({"pointer": "/document/flags/a/tags/1", "detail": "a tag is a string"}),
        json!({"pointer": "/document/flags/a/typo", "detail": "unknown"}),
        json!({"pointer": "/document/flags/a/variations", "detail": "missing"}),
        json!({"pointer": "/comment", "detail": "too long"}),
    ];
    let elsewhere = document.add_problems(&errors, "/document");
    assert_eq!(elsewhere, errors[3..]);
    let Err(CliError::Files { problems, .. }) = document.check() else { panic!("problems") };
    let places: Vec<&str> = problems.iter().map(|line| line.rsplit_once("a.yaml:").unwrap().1).collect();
    let expected = ["2:3: missing (/flags/a/variations)", "4:5: unknown", "5:15: a tag is a string"];
    assert_eq!(places, expected);
}

#[test]
fn large_files_and_links_out_are_refused() {
    let large = "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1);
    let found = problems(&[("large.yaml", &large), ("b.yaml", "a: [")]);
    assert!(found.len() == 2 && found[1].starts_with("large.yaml: is larger than 1 MiB"), "{found:?}");

    let whole = "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap());
    let names: Vec<String> = (0..11).map(|number| format!("{number:02}.yaml")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), whole.as_str())).collect();
    let found = problems(&files);
    assert!(found[0].starts_with("10.yaml: with this file, the files are larger than 10 MiB"), "{found:?}");

    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("x.yaml"), "flags: {}").unwrap();
    fs::write(folder.path().join("y.yaml"), "flags: {}").unwrap();
    std::os::unix::fs::symlink(folder.path().join("y.yaml"), folder.path().join("z.yaml")).unwrap();
    assert_eq!(yaml_files(folder.path()).unwrap().len(), 2);
    std::os::unix::fs::symlink(outside.path().join("x.yaml"), folder.path().join("x.yaml")).unwrap();
    assert!(yaml_files(folder.path()).unwrap_err().to_string().contains("leads out of the folder"));
    fs::remove_file(folder.path().join("x.yaml")).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("more")).unwrap();
    assert!(yaml_files(folder.path()).unwrap_err().to_string().contains("link to a folder"));
    let empty = tempfile::tempdir().unwrap();
    assert!(Document::read(empty.path()).unwrap_err().to_string().contains("no .yaml file"));
}
