//! Files that nobody meant well: read to an end, quickly, without a panic.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Longest time for the largest file, on a slow machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(20);

fn read(bytes: &[u8]) -> Result<Option<Node>, Vec<Problem>> {
    reader::read(bytes, 0, &mut MAX_VALUES.clone())
}

/// Pieces of which YAML is made, ends and beginnings of things mostly.
fn piece() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "a",
        "b: ",
        ": ",
        ":",
        "- ",
        "-",
        "? ",
        "?",
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        " ",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "!t ",
        "!!str ",
        "|",
        ">",
        "|-\n",
        ">+2\n",
        "'",
        "\"",
        "\\",
        "\\u00e9",
        "\\x",
        "#",
        " # c",
        "---",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "<<: ",
        "1",
        "0x1f",
        "1e5",
        "true",
        "~",
        "null",
        "é",
        "\u{2028}",
        "\u{feff}",
        "\r",
        "\r\n",
        "@",
        "`",
        "flags:",
        "''",
        "key: [",
    ])
}

fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i32>().prop_map(Value::from), (-1e300..1e300f64).prop_map(Value::from)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from),
        "[a-z0-9:#,{}\\[\\]&*!|>'\"%@` \n-]{0,12}".prop_map(Value::from),
        proptest::sample::select(vec![
            "yes", "No", "on", "y", "~", "", "1", "0x1", "true", " a", "a ", "a: b", "- a", "..."
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let key = prop_oneof!["[a-z]{1,6}", any::<String>(), Just("on".to_owned()), Just("<<".to_owned())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn any_text_is_read_to_an_end(text in any::<String>()) {
        let _ = read(text.as_bytes());
    }

    #[test]
    fn any_pieces_are_read_to_an_end(pieces in proptest::collection::vec(piece(), 0..60)) {
        let text = pieces.concat();
        if let Err(problems) = read(text.as_bytes()) {
            let lines = text.split('\n').count() + text.matches('\r').count();
            for problem in problems {
                prop_assert!(problem.place.line >= 1 && problem.place.line as usize <= lines + 1, "{problem:?}");
            }
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was(value in value()) {
        let document: Map<String, Value> = [("flags".to_owned(), value)].into_iter().collect();
        let text = write::document(&document);
        prop_assert_eq!(&write::document(&document), &text);
        let read = read(text.as_bytes()).map_err(|problems| TestCaseError::fail(format!("{problems:?}\n{text}")))?;
        prop_assert_eq!(read.map(|it| it.to_value()), Some(json!(document)), "{}", text);
    }
}

#[test]
fn the_largest_hostile_files_take_no_time() {
    let most = usize::try_from(MAX_FILE_BYTES).unwrap();
    let fill = |piece: &str| piece.repeat(most / piece.len());
    let numbered = |form: fn(usize) -> String| {
        let mut text = String::new();
        for number in 0.. {
            text.push_str(&form(number));
            if text.len() > most - 64 {
                break;
            }
        }
        text
    };
    let bomb = (1..10).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let below = format!("*a{}", level - 1);
        format!("{text}a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(","))
    });
    let files = [
        ("brackets", fill("[")),
        ("braces", fill("{")),
        ("braces with keys", fill("{a: ")),
        ("dashes", fill("- ")),
        ("questions", fill("? ")),
        ("colons", fill(": ")),
        ("colons without spaces", fill(":")),
        ("quotes", fill("\"")),
        ("apostrophes", fill("'")),
        ("an open quote", format!("\"{}", fill("a "))),
        ("a long word", fill("a")),
        ("a long line", fill("a ")),
        ("line breaks", fill("\n")),
        ("blank lines in a text", format!("a: |\n{}", fill(" \n"))),
        ("anchors", fill("&a ")),
        ("numbered anchors", numbered(|number| format!("- &a{number} 1\n"))),
        ("tags", fill("!a ")),
        ("commas", format!("[{}", fill("1,"))),
        ("keys", numbered(|number| format!("k{number}: 1\n"))),
        ("the same key", fill("a: 1\n")),
        ("flow keys", format!("{{{}", numbered(|number| format!("k{number}: 1, ")))),
        ("pairs", format!("[{}", fill("a: b, "))),
        ("open pairs", format!("[{}", fill("a : [b, "))),
        ("documents", fill("--- a\n")),
        ("comments", fill("# a\n")),
        ("staircase", (0..1_400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("a list in the same indent", fill("-\n")),
        ("multi-line words", format!("a: {}", fill("b\n  "))),
        ("carriage returns", fill("\r")),
        ("billion laughs", bomb),
    ];
    for (name, text) in files {
        let began = Instant::now();
        let _ = read(text.as_bytes());
        let took = began.elapsed();
        assert!(took < PATIENCE, "{name}: {took:?}");
    }
}
