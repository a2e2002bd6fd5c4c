//! Finding the files of a folder and reading them, within limits.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    Document, MAX_FILE_BYTES, MAX_FILES, MAX_FOLDER_DEPTH, MAX_TOTAL_BYTES, MAX_VALUES, Place, Problems, merge, reader,
};
use crate::cli::CliError;

/// The files that were read, by number.
#[derive(Debug, Default)]
pub struct Sources {
    names: Vec<String>,
}

impl Sources {
    /// A place with the name of its file.
    #[must_use]
    pub fn at(&self, place: Place) -> String {
        let name = usize::try_from(place.file).ok().and_then(|index| self.names.get(index));
        match name {
            Some(name) if place.line > 0 => format!("{name}:{place}"),
            Some(name) => name.clone(),
            None => "(unknown file)".to_owned(),
        }
    }

    fn add(&mut self, name: String) -> u32 {
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name);
        number
    }
}

/// Reads and merges the files below `folder` (or the one file that it is).
///
/// # Errors
///
/// Everything that is wrong with them, by file, line and column.
pub fn read(folder: &Path) -> Result<Document, CliError> {
    let files = yaml_files(folder)?;
    if files.is_empty() {
        let folder = folder.display();
        return Err(CliError::Usage(format!(
            "{folder}: there is no .yaml file in it\n  `guidon export -d {folder}` writes what the server has."
        )));
    }
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    let mut trees = Vec::new();
    let (mut bytes_left, mut values_left) = (MAX_TOTAL_BYTES, MAX_VALUES);
    for path in &files {
        let file = sources.add(path.display().to_string());
        let place = Place { file, ..Place::default() };
        let bytes = match read_bytes(path, &mut bytes_left) {
            Ok(bytes) => bytes,
            Err(Refused::File(message)) => {
                problems.add(place, message);
                continue;
            }
            Err(Refused::All(message)) => {
                problems.add(place, message);
                break;
            }
        };
        match reader::read(&bytes, file, &mut values_left) {
            Ok(tree) => trees.extend(tree),
            Err(found) => found.into_iter().for_each(|problem| problems.add(problem.place, problem.message)),
        }
    }
    if !problems.is_empty() {
        return Err(refusal(problems, &sources));
    }
    Ok(merge::merge(trees, sources))
}

/// Reads one file that holds one mapping, such as a plan; JSON does too.
///
/// # Errors
///
/// Everything that is wrong with it, by line and column.
pub fn read_one(path: &Path) -> Result<Value, CliError> {
    let mut sources = Sources::default();
    let mut problems = Problems::default();
    let file = sources.add(path.display().to_string());
    let tree = match read_bytes(path, &mut { MAX_TOTAL_BYTES }) {
        Ok(bytes) => reader::read(&bytes, file, &mut { MAX_VALUES }),
        Err(Refused::File(message) | Refused::All(message)) => {
            problems.add(Place { file, ..Place::default() }, message);
            Ok(None)
        }
    };
    match tree {
        Ok(Some(tree)) => Ok(tree.to_value()),
        Ok(None) if problems.is_empty() => Ok(Value::Object(Map::new())),
        Ok(None) => Err(refusal(problems, &sources)),
        Err(found) => {
            found.into_iter().for_each(|problem| problems.add(problem.place, problem.message));
            Err(refusal(problems, &sources))
        }
    }
}

/// All problems as one error.
pub fn refusal(problems: Problems, sources: &Sources) -> CliError {
    let lines = problems.lines(sources);
    let what = if lines.len() == 1 { "the files have a problem" } else { "the files have problems" };
    CliError::Files { message: format!("{what}; nothing was changed\n  {}", lines.join("\n  ")), problems: lines }
}

enum Refused {
    File(String),
    All(String),
}

fn read_bytes(path: &Path, left: &mut u64) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    let len = read.map_err(|error| Refused::File(format!("cannot be read: {error}")))?;
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    if len > MAX_FILE_BYTES {
        return Err(Refused::File(format!("is larger than {} MiB; split it up", MAX_FILE_BYTES >> 20)));
    }
    *left = left.checked_sub(len).ok_or_else(|| {
        let most = MAX_TOTAL_BYTES >> 20;
        Refused::All(format!("with this file, the files are larger than {most} MiB together; apply them in parts"))
    })?;
    Ok(bytes)
}

/// The `.yaml` and `.yml` files below `folder`, sorted by path; hidden files and folders are left out. A single file is itself.
///
/// # Errors
///
/// If a folder cannot be read, a link leads out of it or to a folder, or there are too many files.
pub fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let wrong = |path: &Path, reason: &str| CliError::Usage(format!("{}: {reason}", path.display()));
    let metadata = fs::metadata(folder).map_err(|error| wrong(folder, &format!("cannot be read: {error}")))?;
    if metadata.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    if !metadata.is_dir() {
        return Err(wrong(folder, "is neither a folder nor a file"));
    }
    let root = folder.canonicalize().map_err(|error| wrong(folder, &error.to_string()))?;
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((within, depth)) = folders.pop() {
        let entries = fs::read_dir(&within).map_err(|error| wrong(&within, &format!("cannot be read: {error}")))?;
        for entry in entries {
            let entry = entry.map_err(|error| wrong(&within, &error.to_string()))?;
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let kind = entry.file_type().map_err(|error| wrong(&path, &error.to_string()))?;
            if kind.is_dir() {
                if depth >= MAX_FOLDER_DEPTH {
                    return Err(wrong(&path, &format!("folders are nested deeper than {MAX_FOLDER_DEPTH} levels")));
                }
                folders.push((path, depth + 1));
                continue;
            }
            if kind.is_symlink() {
                let target = path.canonicalize().map_err(|error| wrong(&path, &format!("leads nowhere: {error}")))?;
                if target.is_dir() {
                    return Err(wrong(
                        &path,
                        "is a link to a folder, which is not followed; put the files themselves here",
                    ));
                }
                if is_yaml(&path) && !target.starts_with(&root) {
                    return Err(wrong(&path, "is a link that leads out of the folder; put the file itself here"));
                }
                if is_yaml(&path) && target.is_file() {
                    files.push(path);
                }
            } else if kind.is_file() && is_yaml(&path) {
                files.push(path);
            }
            if files.len() > MAX_FILES {
                return Err(wrong(folder, &format!("has more than {MAX_FILES} files; join some")));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
