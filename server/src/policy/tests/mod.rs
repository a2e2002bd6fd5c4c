//! What the policies that come with the server say.

use std::collections::{BTreeMap, BTreeSet};

use super::vocabulary::{SCHEMA, Vocabulary};
use super::*;

#[test]
fn the_builtin_policies_are_sound() {
    cedar_policy::Schema::from_cedarschema_str(SCHEMA).map(|_| ()).unwrap_or_else(|error| panic!("{error:?}"));
    let vocabulary = Vocabulary::get().expect("the schema is sound");
    let mut all = Vec::new();
    for (name, text) in PolicySet::builtin_files() {
        let source = load::Source { name, text, builtin: true };
        let read = load::read(source).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let (problems, doubts) = load::validate(vocabulary, source, &read);
        assert_eq!((problems, doubts), (vec![], vec![]), "{name}");
        all.extend(read);
    }
    let ids: BTreeSet<_> = all.iter().map(|loaded| loaded.info.id.clone()).collect();
    assert_eq!(ids.len(), all.len(), "two built-in policies share an id");
    for loaded in &all {
        assert!(!loaded.unnamed && loaded.info.description.ends_with('.'), "{:?}", loaded.info);
    }
    assert_eq!(PolicySet::builtin().policies().count(), all.len());
}
