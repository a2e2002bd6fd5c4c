//! What an operator may decide about a damaged log. Nothing here is ever done without being asked for, and what is cut
//! off is kept beside the log.

use std::io;
use std::path::{Path, PathBuf};

use super::damage::FlippedByte;
use super::error::{OpenError, at};
use super::files::{Files, create_whole, read_fully};
use super::frame::{SEGMENT_HEADER_BYTES, SegmentHeader, Tag};
use super::recovery::next_frame;
use super::segment::{Scanner, parse_file_name};
use super::watermark::{self, Evidence, Mark};

/// A decision about a damaged log. Files are named without their folder, as the report of the damage names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Gives up everything from this offset of this segment on, later segments too. The offset is where a sound frame
    /// ends, or 0 for the whole segment. What is cut off is kept in files ending in `.cut`.
    TruncateAt {
        /// The segment file.
        segment: String,
        /// The offset in bytes.
        offset: u64,
    },
    /// Puts one changed byte back.
    RestoreByte {
        /// The segment file.
        segment: String,
        /// Place, present and former value.
        flipped: FlippedByte,
    },
    /// Writes the watermark anew from the segments, which are taken to be complete.
    RebuildWatermark,
}

impl Repair {
    /// Reads `FILE:OFFSET`, as a report of damage gives it.
    pub fn truncate_at(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(segment, offset)| {
            Some(Self::TruncateAt { segment: segment.to_owned(), offset: offset.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?}: expected FILE:OFFSET, as the report of the damage gives it"))
    }

    /// Reads `FILE:OFFSET:FOUND:WRITTEN`, as a report of damage gives it.
    pub fn restore_byte(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let mut parsed = || {
            let segment = parts.next()?.to_owned();
            let offset = parts.next()?.parse().ok()?;
            let (found, written) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            parts
                .next()
                .is_none()
                .then_some(Self::RestoreByte { segment, flipped: FlippedByte { offset, found, written } })
        };
        parsed().ok_or_else(|| {
            format!("{text:?}: expected FILE:OFFSET:FOUND:WRITTEN, as the report of the damage gives it")
        })
    }
}

/// Carries out a decision on the log in `dir`, which no process may have open. Returns the files in which what was cut
/// off is kept. After a crash or an error in between, the same repair can be asked for again.
pub fn repair(files: &dyn Files, dir: &Path, decision: &Repair) -> Result<Vec<PathBuf>, OpenError> {
    let _lock = super::lock(files, dir)?;
    match decision {
        Repair::TruncateAt { segment, offset } => truncate(files, dir, segment, *offset),
        Repair::RestoreByte { segment, flipped } => restore(files, dir, segment, *flipped).map(|()| Vec::new()),
        Repair::RebuildWatermark => rebuild_watermark(files, dir).map(|()| Vec::new()),
    }
}

fn refuse(name: &'static str, problem: impl Into<String>) -> OpenError {
    OpenError::Option { name, problem: problem.into() }
}

/// First sequence numbers and paths of the segments, in order.
fn segments(files: &dyn Files, dir: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let names = files.list(dir).map_err(at(dir))?;
    Ok(names.iter().filter_map(|name| Some((parse_file_name(name)?, dir.join(name)))).collect())
}

fn truncate(files: &dyn Files, dir: &Path, segment: &str, offset: u64) -> Result<Vec<PathBuf>, OpenError> {
    const NAME: &str = "truncate-at";
    let evidence = watermark::read(files, dir)?;
    let all = segments(files, dir)?;
    let Some(place) = all.iter().position(|(_, path)| path.file_name().is_some_and(|name| name == segment)) else {
        return Err(refuse(NAME, format!("{segment} is not a segment of {}", dir.display())));
    };
    let (first_seq, path) = &all[place];
    let next_seq = match offset {
        0 => *first_seq,
        _ => match sound_until(files, path, &evidence, *first_seq, offset)? {
            (end, next_seq) if end == offset => next_seq,
            (end, _) => {
                let problem = format!("{offset} is not the end of a sound frame; the last one before it ends at {end}");
                return Err(refuse(NAME, problem));
            }
        },
    };
    // From the last one back, so that what is left is without gaps at any time.
    let whole = all[place..].iter().skip(usize::from(offset > 0)).rev();
    let mut kept = Vec::new();
    for (_, path) in whole {
        let cut = with_suffix(path, ".cut");
        files.rename(path, &cut).map_err(at(path))?;
        kept.push(cut);
    }
    files.sync_dir(dir).map_err(at(dir))?;
    if offset > 0 {
        kept.extend(cut_off(files, path, offset).map_err(at(path))?);
    }
    let mut watermark = evidence.open(files).map_err(at(&evidence.path))?;
    let mark = Mark { first_seq: evidence.mark.first_seq.min(next_seq), next_seq };
    watermark.rewrite(mark).and_then(|()| watermark.rewrite(mark)).map_err(at(&evidence.path))?;
    watermark.hint(next_seq).map_err(at(&evidence.path))?;
    Ok(kept)
}

/// Where the sound frames of a segment end, looking no further than `limit`, and the number of the next record.
fn sound_until(
    files: &dyn Files,
    path: &Path,
    evidence: &Evidence,
    first_seq: u64,
    limit: u64,
) -> Result<(u64, u64), OpenError> {
    let file = files.open(path).map_err(at(path))?;
    let mut scanner = Scanner::new(file, SEGMENT_HEADER_BYTES as u64, limit);
    let mut next_seq = first_seq;
    while scanner.offset < limit {
        let frame = next_frame(&mut scanner, path, Tag::of(&evidence.id), next_seq, &mut |_| {}).map_err(at(path))?;
        let Some(header) = frame else { break };
        next_seq = header.next_seq();
    }
    Ok((scanner.offset, next_seq))
}

fn cut_off(files: &dyn Files, path: &Path, offset: u64) -> io::Result<Option<PathBuf>> {
    let file = files.open(path)?;
    let len = file.len()?;
    if len <= offset {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(len - offset).map_err(io::Error::other)?];
    let read = read_fully(&*file, offset, &mut bytes)?;
    let kept = with_suffix(path, &format!(".{offset}.cut"));
    create_whole(files, &kept, &bytes[..read])?;
    file.set_len(offset)?;
    file.sync_data()?;
    Ok(Some(kept))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn restore(files: &dyn Files, dir: &Path, segment: &str, flipped: FlippedByte) -> Result<(), OpenError> {
    const NAME: &str = "restore-byte";
    if parse_file_name(segment).is_none() {
        return Err(refuse(NAME, format!("{segment} is not a segment of {}", dir.display())));
    }
    let path = dir.join(segment);
    let file = files.open(&path).map_err(at(&path))?;
    let mut byte = [0];
    let read = read_fully(&*file, flipped.offset, &mut byte).map_err(at(&path))?;
    if read == 0 || byte[0] != flipped.found {
        return Err(refuse(NAME, format!("byte {} of {segment} is not {}", flipped.offset, flipped.found)));
    }
    file.write_all_at(flipped.offset, &[flipped.written]).and_then(|()| file.sync_data()).map_err(at(&path))
}

fn rebuild_watermark(files: &dyn Files, dir: &Path) -> Result<(), OpenError> {
    let all = segments(files, dir)?;
    let header = |path: &Path| -> Result<SegmentHeader, OpenError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let file = files.open(path).map_err(at(path))?;
        let len = read_fully(&*file, 0, &mut bytes).map_err(at(path))?;
        SegmentHeader::decode(&bytes[..len])
            .map_err(|_| refuse("rebuild-watermark", format!("the header of {} is not sound", path.display())))
    };
    let (Some((first_seq, first)), Some((last_seq, last))) = (all.first(), all.last()) else {
        return Err(refuse("rebuild-watermark", format!("{} holds no segments", dir.display())));
    };
    let SegmentHeader { kind, id, .. } = header(first)?;
    // Whatever is before the last segment was acknowledged; within it the frames show how far the log goes.
    let evidence = Evidence::of_segments(dir, kind, id, Mark { first_seq: *first_seq, next_seq: *last_seq });
    let len = files.open(last).and_then(|file| file.len()).map_err(at(last))?;
    let (_, next_seq) = sound_until(files, last, &evidence, *last_seq, len)?;
    watermark::create(files, dir, kind, id, Mark { first_seq: *first_seq, next_seq }).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimFiles;
    use super::super::{Kind, Log, Options, RecordRef};
    use super::*;

    const DIR: &str = "/data/log";
    const FIRST: &str = "00000000000000000001.log";

    fn open(disk: &SimFiles) -> Result<(Log, Vec<Vec<u8>>), OpenError> {
        let mut held = Vec::new();
        let options = Options { segment_bytes: Options::MIN_SEGMENT_BYTES, ..Options::default() };
        let visit = |record: RecordRef<'_>| held.push(record.payload.to_vec());
        let (log, _) = Log::open(disk.shared(), Path::new(DIR), Kind::Journal, options, visit)?;
        Ok((log, held))
    }

    fn filled(disk: &SimFiles) -> Vec<Vec<u8>> {
        let (log, _) = open(disk).unwrap();
        let records: Vec<Vec<u8>> = (1..=20_u8).map(|index| vec![index; 700]).collect();
        for record in &records {
            log.append(record.clone()).unwrap().wait().unwrap();
        }
        records
    }

    /// The last of a report's repair commands of this name, read back.
    fn proposed<'a>(report: &'a str, command: &str) -> &'a str {
        let at = report.find(command).unwrap_or_else(|| panic!("no {command} in {report}"));
        report[at + command.len()..].trim_start().split([')', ';']).next().unwrap()
    }

    #[test]
    fn the_byte_that_the_report_names_mends_the_log() {
        let disk = SimFiles::new();
        let records = filled(&disk);
        disk.flip(&Path::new(DIR).join(FIRST), 900, 0x41);
        let report = open(&disk).unwrap_err().to_string();
        let decision = Repair::restore_byte(proposed(&report, "--restore-byte")).unwrap();
        repair(&disk, Path::new(DIR), &decision).unwrap();
        assert_eq!(open(&disk).unwrap().1, records);
        let again = repair(&disk, Path::new(DIR), &decision).unwrap_err().to_string();
        assert!(again.contains("byte 900"), "{again}");
    }

    #[test]
    fn cutting_off_at_the_place_that_the_report_names_keeps_what_is_before_it() {
        for (offset, left) in [(900, 1), (20, 0)] {
            let disk = SimFiles::new();
            let records = filled(&disk);
            disk.flip(&Path::new(DIR).join(FIRST), offset, 0x41);
            let report = open(&disk).unwrap_err().to_string();
            let decision = Repair::truncate_at(proposed(&report, "--truncate-at")).unwrap();
            let kept = repair(&disk, Path::new(DIR), &decision).unwrap();
            assert!(!kept.is_empty() && kept.iter().all(|path| disk.content(path).is_some()), "{kept:?}");
            disk.power_cut(1);
            let (log, held) = open(&disk).unwrap();
            assert_eq!(held, records[..left]);
            assert_eq!(log.append("next").unwrap().wait(), Ok(left as u64 + 1));
        }
    }

    #[test]
    fn a_place_within_a_frame_is_refused_with_the_place_that_would_do() {
        let disk = SimFiles::new();
        let records = filled(&disk);
        let decision = Repair::truncate_at(&format!("{FIRST}:1000")).unwrap();
        let error = repair(&disk, Path::new(DIR), &decision).unwrap_err().to_string();
        assert!(error.contains("800"), "{error}");
        assert_eq!(open(&disk).unwrap().1, records);
        assert!(Repair::truncate_at("x").is_err() && Repair::restore_byte("a:1:2").is_err());
    }

    #[test]
    fn a_lost_watermark_stops_the_start_until_it_is_rebuilt() {
        let disk = SimFiles::new();
        let records = filled(&disk);
        disk.remove(&Path::new(DIR).join("watermark")).unwrap();
        let report = open(&disk).unwrap_err().to_string();
        assert!(report.contains("--rebuild-watermark"), "{report}");
        repair(&disk, Path::new(DIR), &Repair::RebuildWatermark).unwrap();
        assert_eq!(open(&disk).unwrap().1, records);
    }
}
