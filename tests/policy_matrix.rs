//! The whole of who may do what, printed and compared with the table that is checked in.
//!
//! `GUIDON_BLESS=1 cargo test -p guidon-tests policy_matrix` writes the table anew; what changed is then for a reviewer.

use std::collections::BTreeSet;
use std::path::Path;

use guidon_server::policy::{Action, PolicySet, Who, render, rows};

use crate::counts::report;

#[test]
fn the_table_is_the_one_that_is_checked_in() {
    let set = PolicySet::builtin();
    let table = render(&set, &rows(&set));
    report(&table);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy_matrix/table.txt");
    if std::env::var_os("GUIDON_BLESS").is_some_and(|value| value != "0") {
        std::fs::write(&path, &table).expect("the table can be written");
    }
    let checked_in = std::fs::read_to_string(&path).expect("the table is checked in");
    let differs = table.lines().zip(checked_in.lines()).find(|(is, was)| is != was);
    let known = lines(&checked_in);
    for action in Action::ALL {
        for who in Who::all() {
            let line = (action.as_str().to_owned(), who.name());
            assert!(known.contains(&line), "tests/policy_matrix/table.txt has no line for {line:?}");
        }
    }
    assert!(
        table == checked_in,
        "the policies no longer say what tests/policy_matrix/table.txt says; the first line that differs (now, then): \
         {differs:#?}\nIf that is meant, write the table anew with GUIDON_BLESS=1 and let somebody look at the difference."
    );
}

/// Action and principal of each line.
fn lines(table: &str) -> BTreeSet<(String, String)> {
    let words = |line: &str| Some((line.get(..22)?.trim().to_owned(), line.get(22..46)?.trim().to_owned()));
    table.lines().filter_map(words).collect()
}
