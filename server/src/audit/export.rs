//! The trail as NDJSON or CSV, a page at a time, so that an export of any length needs little memory.

use super::query::{AuditQuery, Cursor, Order, QueryError, Trail};
use super::record::AuditRecord;
use super::{Filter, Person};

/// Records that are read for one piece of an export.
const PAGE_RECORDS: usize = 500;

/// Between the parts of a cell that holds several.
const SEPARATOR: &str = "; ";

/// The columns of a CSV export.
pub const CSV_COLUMNS: [&str; 28] = [
    "id",
    "time",
    "kind",
    "actorId",
    "actorKind",
    "actor",
    "originId",
    "address",
    "door",
    "project",
    "environments",
    "tiers",
    "flags",
    "segments",
    "actions",
    "summary",
    "comment",
    "commit",
    "credential",
    "policies",
    "request",
    "approvals",
    "riskScore",
    "riskLevel",
    "emergency",
    "needsReview",
    "count",
    "hash",
];

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180, with a header line. Cells that a spreadsheet would take for a formula start with an apostrophe.
    Csv,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The logs cannot be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A record has no such form.
    #[error("a record cannot be written: {0}")]
    Unwritable(String),
}

/// Writes an export, piece by piece.
pub struct Export {
    trail: Trail,
    filter: Filter,
    order: Order,
    format: ExportFormat,
    progress: Progress,
}

enum Progress {
    Start,
    At(Cursor),
    Over,
}

impl Export {
    /// An export of what meets `filter`.
    #[must_use]
    pub fn new(trail: Trail, filter: Filter, order: Order, format: ExportFormat) -> Self {
        Self { trail, filter, order, format, progress: Progress::Start }
    }

    /// The next bytes, never none; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written so far is not all then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let mut bytes = Vec::new();
        while bytes.is_empty() {
            let cursor = match self.progress {
                Progress::Over => return Ok(None),
                Progress::At(cursor) => Some(cursor),
                Progress::Start => {
                    if self.format == ExportFormat::Csv {
                        csv_line(&mut bytes, CSV_COLUMNS)?;
                    }
                    None
                }
            };
            let query = AuditQuery { filter: self.filter.clone(), order: self.order, cursor, limit: PAGE_RECORDS };
            let page = self.trail.page(&query).await?;
            for record in &page.records {
                match self.format {
                    ExportFormat::Ndjson => ndjson_line(&mut bytes, record)?,
                    ExportFormat::Csv => csv_line(&mut bytes, cells(record).iter().map(String::as_str))?,
                }
            }
            self.progress = page.next.map_or(Progress::Over, Progress::At);
        }
        Ok(Some(bytes))
    }
}

fn ndjson_line(bytes: &mut Vec<u8>, record: &AuditRecord) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *bytes, record).map_err(|error| ExportError::Unwritable(error.to_string()))?;
    bytes.push(b'\n');
    Ok(())
}

fn csv_line<'a>(bytes: &mut Vec<u8>, cells: impl IntoIterator<Item = &'a str>) -> Result<(), ExportError> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(bytes);
    let written = writer.write_record(cells).map_err(|error| error.to_string());
    written.and_then(|()| writer.flush().map_err(|error| error.to_string())).map_err(ExportError::Unwritable)
}

fn cells(record: &AuditRecord) -> [String; CSV_COLUMNS.len()] {
    let AuditRecord { grounds, actor, origin, .. } = record;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let actor_text =
        |part: fn(&Person) -> &String| actor.as_ref().map_or_else(String::new, |actor| part(actor).clone());
    let approvals: Vec<String> = grounds.approvals.iter().map(|person| person.name.clone()).collect();
    let tiers: Vec<String> = record.tiers.iter().map(|tier| tier.as_str().to_owned()).collect();
    let environments = if record.everywhere { "all".to_owned() } else { record.environments.join(SEPARATOR) };
    let cells = [
        record.id.clone(),
        time(record.at),
        record.kind.to_owned(),
        actor_text(|actor| &actor.id),
        actor_text(|actor| &actor.kind),
        actor_text(|actor| &actor.name),
        origin.id.clone(),
        origin.address.clone(),
        origin.door.clone(),
        text(&record.project),
        environments,
        tiers.join(SEPARATOR),
        record.flags.join(SEPARATOR),
        record.segments.join(SEPARATOR),
        record.actions.join(SEPARATOR),
        record.summary.join(SEPARATOR),
        record.comment.clone(),
        text(&record.commit),
        text(&record.credential),
        grounds.policies.join(SEPARATOR),
        text(&grounds.request),
        approvals.join(SEPARATOR),
        grounds.risk.as_ref().map_or_else(String::new, |risk| risk.score.to_string()),
        grounds.risk.as_ref().map_or_else(String::new, |risk| risk.level.clone()),
        if grounds.emergency { "yes" } else { "" }.to_owned(),
        if record.needs_review { "yes" } else { "" }.to_owned(),
        record.count.to_string(),
        record.hash.clone(),
    ];
    cells.map(defused)
}

/// Keeps a spreadsheet from taking what somebody wrote for a formula.
fn defused(cell: String) -> String {
    // Full-width forms are taken for the plain ones by some spreadsheets.
    const STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    if cell.starts_with(STARTS) { format!("'{cell}") } else { cell }
}

fn time(at: u64) -> String {
    let time = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    time.map_or_else(|| at.to_string(), |time| time.to_string())
}
