//! `guidon export`: the configuration on the server as files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use guidon_sdk::model::is_valid_key;
use serde_json::{Map, Value, json};

use super::output::Output;
use super::put_file::{Readers, put_file};
use super::show::text;
use super::yaml::{MAX_FILE_BYTES, write_document, yaml_files};
use super::{Api, CliError};

/// Name of the JSON Schema beside the files.
const SCHEMA_FILE: &str = "guidon.schema.json";
/// What a file that was exported, and not edited since, has in its second line before its checksum.
const MARK: &str = "# Written by `guidon export`, checksum ";
/// Most places that one error names.
const MAX_NAMED: usize = 20;

/// What to write, and where.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder to write to; it is made if it is not there
    #[arg(long, short, value_name = "DIR")]
    directory: PathBuf,
    /// Only these environments
    #[arg(long, short, value_name = "KEY", value_delimiter = ',')]
    environment: Vec<String>,
    /// Also write individual targets and key lists: they are persons' keys, for which others may have to answer
    #[arg(long)]
    keys: bool,
    /// Also write which slots of a rollout belong to which variation
    #[arg(long)]
    allocations: bool,
    /// Overwrite files that were edited or that something else wrote
    #[arg(long)]
    force: bool,
}

/// Writes the files.
pub fn run(args: &ExportArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut query = Vec::new();
    if !args.environment.is_empty() {
        query.push(("environment", args.environment.join(",")));
    }
    let switches = [("keys", args.keys), ("allocations", args.allocations)];
    query.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| (*name, "true".to_owned())));
    let exported = api.get(&api.in_project("/documents"), &query)?;
    let mut files = split(&exported["document"])?;
    let schema = api.get("/api/v1/schema/configuration.json", &[])?;
    let schema = serde_json::to_string_pretty(&schema).map_err(|error| CliError::Unexpected(error.to_string()))?;
    files.insert(PathBuf::from(SCHEMA_FILE), format!("{schema}\n"));

    let covered: BTreeSet<&str> =
        exported["document"]["environments"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    let present = Present::of(&args.directory, &files, &covered)?;
    if !present.foreign.is_empty() && !args.force {
        return Err(refused(&args.directory, &present.foreign));
    }
    let (mut written, mut same) = (Vec::new(), 0);
    for (path, content) in &files {
        let path = args.directory.join(path);
        // One with persons' keys is written anew also where nothing changed: others may have been let in to read it.
        let holds_keys = args.keys && path.extension().is_some_and(|it| it == "yaml");
        let is_same = fs::read(&path).is_ok_and(|there| there == content.as_bytes());
        if !is_same || holds_keys {
            write(&path, content, holds_keys)?;
        }
        if is_same {
            same += 1;
            continue;
        }
        written.push(path.display().to_string());
    }
    for path in &present.stale {
        fs::remove_file(path).map_err(|error| wrong(path, &error))?;
    }
    let removed: Vec<String> = present.stale.iter().map(|path| path.display().to_string()).collect();
    let left: Vec<String> = present
        .foreign
        .iter()
        .filter(|path| !files.contains_key(*path))
        .map(|path| args.directory.join(path).display().to_string())
        .collect();
    let revision = &exported["revision"];
    let answer = json!({"revision": revision, "written": written, "unchanged": same, "removed": removed, "left": left});
    output.either(&answer, |output| {
        let (wrote, removed) = (written.len(), removed.len());
        let folder = args.directory.display();
        output.line(format!(
            "{folder}: files written: {wrote}, unchanged: {same}, removed: {removed} (revision {}).",
            text(revision)
        ))?;
        if !left.is_empty() {
            output.line(format!("  These are of no object on the server, and stay: {}", left.join(", ")))?;
        }
        Ok(())
    })
}

/// A document in files by path: a file for each flag and each segment, and one for the environments.
fn split(document: &Value) -> Result<BTreeMap<PathBuf, String>, CliError> {
    let mut files = BTreeMap::new();
    if let Some(environments) = document["environments"].as_object() {
        files.insert(PathBuf::from("environments.yaml"), file(0, "environments", environments.clone()));
    }
    for (key, flag) in document["flags"].as_object().into_iter().flatten() {
        let content = [(key.clone(), flag.clone())].into_iter().collect();
        files.insert(PathBuf::from(format!("flags/{}.yaml", checked(key)?)), file(1, "flags", content));
    }
    for (environment, segments) in document["segments"].as_object().into_iter().flatten() {
        for (key, segment) in segments.as_object().into_iter().flatten() {
            let path = format!("segments/{}/{}.yaml", checked(environment)?, checked(key)?);
            let content = [(environment.clone(), json!({key: segment}))].into_iter().collect();
            files.insert(PathBuf::from(path), file(2, "segments", content));
        }
    }
    Ok(files)
}

/// A key becomes part of a path: it must have the form of one.
fn checked(key: &str) -> Result<&str, CliError> {
    if is_valid_key(key) {
        return Ok(key);
    }
    Err(CliError::Unexpected(format!("the server sent \"{key}\" as a key, which is none; nothing was written")))
}

/// A file's text: where its schema is, the mark of what wrote it, and the content.
fn file(depth: usize, part: &str, content: Map<String, Value>) -> String {
    let body = write_document(&[(part.to_owned(), Value::Object(content))].into_iter().collect());
    let up = "../".repeat(depth);
    format!(
        "# yaml-language-server: $schema={up}{SCHEMA_FILE}\n{MARK}{}; once edited, it is overwritten with --force only.\n{body}",
        checksum(&body)
    )
}

fn checksum(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().chars().take(16).collect()
}

/// Whether a file's text is as an export wrote it.
fn is_ours(text: &str) -> bool {
    let mut lines = text.splitn(3, '\n');
    let (Some(_), Some(mark), Some(body)) = (lines.next(), lines.next(), lines.next()) else { return false };
    mark.strip_prefix(MARK).and_then(|rest| rest.split(';').next()).is_some_and(|told| told == checksum(body))
}

/// What is in the folder already, as paths within it.
#[derive(Default)]
struct Present {
    /// Written by others, or edited: not to be overwritten unasked, and not what the server has.
    foreign: Vec<PathBuf>,
    /// Exported once, and of no object that there is now.
    stale: Vec<PathBuf>,
}

impl Present {
    /// `covered`: the environments that the export is of. A file that says something of another is not replaced unasked: what it
    /// says would be lost.
    fn of(folder: &Path, files: &BTreeMap<PathBuf, String>, covered: &BTreeSet<&str>) -> Result<Self, CliError> {
        let mut present = Self::default();
        if !folder.exists() {
            return Ok(present);
        }
        for path in yaml_files(folder)? {
            let within = path.strip_prefix(folder).unwrap_or(&path).to_owned();
            // What is not text is not ours.
            let there = fs::read(&path).map_err(|error| wrong(&path, &error))?;
            let there = String::from_utf8(there).unwrap_or_default();
            let replaceable =
                is_ours(&there) && environments_in(&there).iter().all(|key| covered.contains(key.as_str()));
            match files.get(&within) {
                Some(content) if *content == there || replaceable => {}
                None if replaceable => present.stale.push(path),
                _ => present.foreign.push(within),
            }
        }
        Ok(present)
    }
}

/// The environments that a file of ours speaks of: the keys a level below `environments:` and, in a segment's, `segments:`.
fn environments_in(text: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut below = None;
    for line in text.lines() {
        let content = line.trim_start();
        let depth = line.len() - content.len();
        if below.is_some_and(|level| depth < level) {
            below = None;
        }
        match below {
            Some(level) if depth == level => {
                let key = content.split(':').next().unwrap_or_default();
                named.insert(key.trim_matches(['"', '\'']).to_owned());
            }
            None if content == "environments:" || line == "segments:" => below = Some(depth + 2),
            _ => {}
        }
    }
    named
}

fn refused(folder: &Path, foreign: &[PathBuf]) -> CliError {
    let mut named: Vec<String> =
        foreign.iter().take(MAX_NAMED).map(|path| folder.join(path).display().to_string()).collect();
    if foreign.len() > named.len() {
        named.push(format!("and {} more", foreign.len() - named.len()));
    }
    CliError::Usage(format!(
        "these files were edited, or something else wrote them, or they speak of environments that this export leaves out; \
         nothing was written\n  {}\n  \
         Export to another folder and compare, or overwrite them with --force.",
        named.join("\n  ")
    ))
}

/// Writes a file whole or not at all.
fn write(path: &Path, content: &str, holds_keys: bool) -> Result<(), CliError> {
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES
        && path.extension().is_some_and(|it| it == "yaml")
    {
        let most = MAX_FILE_BYTES >> 20;
        return Err(CliError::Unexpected(format!(
            "{}: would be larger than {most} MiB, which is not read",
            path.display()
        )));
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(|error| wrong(path, &error))?;
    let readers = if holds_keys { Readers::Owner } else { Readers::Usual };
    put_file(path, content.as_bytes(), readers).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, error: &std::io::Error) -> CliError {
    CliError::Unexpected(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_file_for_each_object() {
        let document = json!({
            "environments": {"staging": {"name": "Staging", "tier": "staging"}},
            "flags": {"a": {"kind": "boolean", "tags": ["x", "yes"], "description": "one: two"}},
            "segments": {"staging": {"beta": {"name": "", "rules": []}}},
        });
        let files = split(&document).unwrap();
        let paths: Vec<_> = files.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["environments.yaml", "flags/a.yaml", "segments/staging/beta.yaml"]);
        let flag = &files[Path::new("flags/a.yaml")];
        assert!(flag.starts_with("# yaml-language-server: $schema=../guidon.schema.json\n# Written by"), "{flag}");
        let body = "flags:\n  a:\n    kind: boolean\n    tags: [x, \"yes\"]\n    description: \"one: two\"\n";
        assert!(flag.ends_with(body), "{flag}");
        assert!(files.values().all(|text| is_ours(text)));
        assert!(!is_ours(&flag.replace("boolean", "string")) && !is_ours(body) && !is_ours(""));
        assert!(split(&json!({"flags": {"../../etc/passwd": {}}})).is_err());
    }

    #[test]
    fn what_others_wrote_is_found_and_what_is_gone_too() {
        let folder = tempfile::tempdir().unwrap();
        let before = split(&json!({"flags": {"a": {"name": "A"}, "b": {}, "c": {}}})).unwrap();
        before.iter().for_each(|(path, text)| write(&folder.path().join(path), text, false).unwrap());
        fs::write(folder.path().join("flags/c.yaml"), "flags: {c: {}}\n").unwrap();
        fs::write(folder.path().join("mine.yaml"), "flags: {}\n").unwrap();
        let now = split(&json!({"flags": {"a": {"name": "B"}, "c": {}}})).unwrap();
        let present = Present::of(folder.path(), &now, &BTreeSet::new()).unwrap();
        assert_eq!(present.foreign, [Path::new("flags/c.yaml"), Path::new("mine.yaml")]);
        assert_eq!(present.stale, [folder.path().join("flags/b.yaml")]);
        assert!(Present::of(&folder.path().join("none"), &now, &BTreeSet::new()).unwrap().foreign.is_empty());
    }

    #[test]
    fn the_environments_that_a_file_speaks_of_are_found() {
        let environments = json!({"staging": {"on": true, "rules": []}, "production-eu": {"on": false}});
        let document = json!({
            "environments": {"testing": {"tier": "testing"}},
            "flags": {"f": {"kind": "boolean", "environments": environments}},
            "segments": {"production": {"beta": {"rules": []}}},
        });
        let files = split(&document).unwrap();
        let of = |path: &str| environments_in(&files[Path::new(path)]).into_iter().collect::<Vec<_>>();
        assert_eq!(of("environments.yaml"), ["testing"]);
        assert_eq!(of("flags/f.yaml"), ["production-eu", "staging"]);
        assert_eq!(of("segments/production/beta.yaml"), ["production"]);
    }
}
