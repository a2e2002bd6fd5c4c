use guidon_sdk::model::KeySetRef;
use guidon_sdk::snapshot::Snapshot;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::push::sample;
use crate::segments::KeyPart;
use crate::state::KeySetSource;

/// One edit of the sample project.
#[derive(Clone, Debug)]
enum Edit {
    Flag { flag: usize, on: bool, client_side: bool, segment: Option<usize>, archived: bool },
    RemoveFlag { flag: usize },
    Segment { segment: usize, name: usize, first: usize, count: usize },
    RemoveSegment { segment: usize },
    Elsewhere { segment: usize },
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0..4_usize, any::<bool>(), any::<bool>(), prop::option::of(0..3_usize), prop::bool::weighted(0.1)).prop_map(
            |(flag, on, client_side, segment, archived)| Edit::Flag { flag, on, client_side, segment, archived }
        ),
        1 => (0..4_usize).prop_map(|flag| Edit::RemoveFlag { flag }),
        4 => (0..3_usize, 0..2_usize, 0..30_usize, 0..30_usize)
            .prop_map(|(segment, name, first, count)| Edit::Segment { segment, name, first, count }),
        1 => (0..3_usize).prop_map(|segment| Edit::RemoveSegment { segment }),
        1 => (0..3_usize).prop_map(|segment| Edit::Elsewhere { segment }),
    ]
}

fn apply(world: &World, edit: &Edit) -> (World, ObjectId) {
    let here = || sample::ENVIRONMENT.to_owned();
    let world_after = |change: &dyn Fn(&mut Project)| sample::after(world, change);
    match edit {
        Edit::Flag { flag, on, client_side, segment, archived } => {
            let key = format!("flag-{flag}");
            let segment = segment.map(|segment| format!("segment-{segment}"));
            let mut definition = sample::flag(&key, *on, *client_side, segment.as_deref());
            definition.archived = *archived;
            (world_after(&|project| sample::set_flag(project, definition.clone())), ObjectId::Flag(key))
        }
        Edit::RemoveFlag { flag } => {
            let key = format!("flag-{flag}");
            (world_after(&|project| drop(project.flags.remove(&key))), ObjectId::Flag(key.clone()))
        }
        Edit::Segment { segment, name, first, count } => {
            let key = format!("segment-{segment}");
            let keys: Vec<String> = (*first..first + count).map(|key| format!("user-{key}")).collect();
            let set = |project: &mut Project| {
                sample::set_segment(project, sample::ENVIRONMENT, &key, &format!("name {name}"), &keys);
            };
            (world_after(&set), ObjectId::Segment(here(), key.clone()))
        }
        Edit::RemoveSegment { segment } => {
            let key = format!("segment-{segment}");
            let remove = |project: &mut Project| drop(project.segments.remove(&(here(), key.clone())));
            (world_after(&remove), ObjectId::Segment(here(), key.clone()))
        }
        Edit::Elsewhere { segment } => {
            let key = format!("segment-{segment}");
            let set = |project: &mut Project| sample::set_segment(project, "testing", &key, "", &[]);
            (world_after(&set), ObjectId::Segment("testing".to_owned(), key.clone()))
        }
    }
}

/// A snapshot's JSON with lists in order, the revision left out.
fn normal(snapshot: &Snapshot) -> Value {
    let mut value = serde_json::to_value(snapshot).unwrap();
    value["revision"] = Value::Null;
    for list in ["flags", "segments"] {
        value[list].as_array_mut().unwrap().sort_by_key(|item| item["key"].as_str().unwrap().to_owned());
    }
    for segment in value["segments"].as_array_mut().unwrap() {
        for keys in ["included", "excluded"] {
            if let Some(keys) = segment[keys].as_array_mut() {
                keys.sort_by_key(|key| key.as_str().unwrap().to_owned());
            }
        }
    }
    value
}

fn whole(world: &World, key: &ChannelKey) -> Snapshot {
    Snapshot::from_body(&snapshot("h", world, key).unwrap())
}

proptest! {
    #[test]
    fn patches_lead_where_the_snapshot_is(edits in prop::collection::vec(edit(), 1..40), skip in 1..5_usize) {
        for audience in [Audience::Server, Audience::Client] {
            let key = sample::channel_key(audience);
            let mut world = sample::world();
            let mut followed = whole(&world, &key);
            let mut leaping = followed.clone();
            let (mut leap_from, mut last_change) = (world.clone(), world.revision);
            for (index, edit) in edits.iter().enumerate() {
                let (next, object) = apply(&world, edit);
                let told = between("h", last_change, &world, &next, &key, &Extent::Objects([object].into()));
                let compared = between("h", last_change, &world, &next, &key, &Extent::Unknown);
                prop_assert_eq!(serde_json::to_value(&told).unwrap(), serde_json::to_value(&compared).unwrap());
                if let Some(patch) = told {
                    followed = followed.apply(&patch).unwrap();
                    last_change = next.revision;
                }
                let expected = normal(&whole(&next, &key));
                prop_assert_eq!(normal(&followed), expected.clone());
                if index % skip == 0 {
                    if let Some(patch) = between("h", leap_from.revision, &leap_from, &next, &key, &Extent::Unknown) {
                        leaping = leaping.apply(&patch).unwrap();
                    } else {
                        leaping = leaping.at(Revision { history: "h".to_owned(), number: next.revision });
                    }
                    prop_assert_eq!(normal(&leaping), expected);
                    leap_from = next.clone();
                }
                world = next;
            }
        }
    }
}

#[test]
fn browsers_see_only_what_is_marked_for_them_and_no_words() {
    let world = sample::after(&sample::world(), |project| {
        sample::set_flag(project, sample::flag("seen", true, true, Some("both")));
        sample::set_flag(project, sample::flag("hidden", true, false, Some("secret")));
        for segment in ["both", "secret", "unused"] {
            sample::set_segment(project, sample::ENVIRONMENT, segment, "", &["user-1".to_owned()]);
        }
    });
    let json = |audience| serde_json::to_string(&snapshot("h", &world, &sample::channel_key(audience))).unwrap();
    let (server, client) = (json(Audience::Server), json(Audience::Client));
    for word in ["seen", "hidden", "both", "secret", "for people", r#""model":"m""#] {
        assert!(server.contains(word), "{word}");
    }
    assert!(client.contains("seen") && client.contains("both") && client.contains(r#""provenance":{"by":"ai"}"#));
    for word in ["hidden", "secret", "for people", "model", "commit"] {
        assert!(!client.contains(word), "{word}: {client}");
    }
    assert!(!server.contains("unused"));
}

#[test]
fn one_key_of_a_large_segment_costs_a_small_patch() {
    let keys: Vec<String> = (0..10_000).map(|key| format!("user-{key}")).collect();
    let before = sample::after(&sample::world(), |project| {
        sample::set_flag(project, sample::flag("f", true, false, Some("s")));
        sample::set_segment(project, sample::ENVIRONMENT, "s", "", &keys);
    });
    let after =
        sample::after(&before, |project| sample::set_segment(project, sample::ENVIRONMENT, "s", "", &keys[1..]));
    let patch = between("h", 2, &before, &after, &sample::channel_key(Audience::Server), &Extent::Unknown).unwrap();
    assert_eq!(patch.segment_keys[0].not_included, ["user-0"]);
    assert!(patch.segments.is_empty() && patch.flags.is_empty());
}

struct OneKey;

impl KeySetSource for OneKey {
    fn keys(&self, _: &KeySetRef) -> Option<Arc<[String]>> {
        Some(["someone-else".to_owned()].into())
    }
}

/// A key added as the journal is folded leaves the rest of the set shared, so that the patch is found in one shard.
#[test]
fn one_key_added_to_a_hundred_thousand_is_cheap_to_find_and_to_send() {
    let keys: Vec<String> = (0..100_000).map(|key| format!("user-{key}")).collect();
    let before = sample::after(&sample::world(), |project| {
        sample::set_flag(project, sample::flag("f", true, false, Some("s")));
        sample::set_segment(project, sample::ENVIRONMENT, "s", "", &keys);
    });
    let id = (sample::ENVIRONMENT.to_owned(), "s".to_owned());
    let after = sample::after(&before, |project| {
        let old = Arc::clone(&project.segments[&id]);
        let mut stored = (*old.stored).clone();
        stored.included.push(KeyPart::Add(KeySetRef { id: "new".to_owned(), hash: String::new(), len: 1 }));
        project.segments.insert(id.clone(), Arc::new(SegmentState::after(Some(&old), stored, &OneKey, 0)));
    });
    let included = |world: &World| world.projects[sample::PROJECT].segments[&id].included.clone();
    let difference = included(&before).difference(&included(&after));
    assert!(difference.compared < 1_000, "{} keys compared", difference.compared);
    let key = sample::channel_key(Audience::Server);
    let patch = between("h", 2, &before, &after, &key, &Extent::Unknown).unwrap();
    assert_eq!(patch.segment_keys[0].included, ["someone-else"]);
    let bytes = serde_json::to_vec(&patch).unwrap().len();
    assert!(bytes < 200, "{bytes} bytes");
}

#[test]
fn an_environment_that_does_not_exist_has_no_snapshot() {
    let mut key = sample::channel_key(Audience::Server);
    key.environment = "nowhere".into();
    assert!(snapshot("h", &sample::world(), &key).is_none());
}
