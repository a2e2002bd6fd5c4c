//! What the journal says, folded into memory, and kept on disk for a quick start.

mod fold;
mod folder;
mod follower;
mod keeper;
mod object;
mod open;
mod quota;
mod read;
mod records;
mod repeatable;
mod sled;
mod touched;
mod world;

pub use fold::{FoldError, KeySetSource, NoKeySets};
pub use folder::{DataFolder, FolderLock};
pub(crate) use follower::FetchedKeySets;
pub use follower::{Follower, FollowerHealth, Publisher, Stopped};
pub use keeper::{KeepHealth, KeepOptions, Keeper};
pub use object::{hash_in_directory, hash_object, shared_part};
pub use open::{OpenOptions, Opened, StartError, StartReport, open};
pub use quota::{QUOTA_WINDOW_MS, Quotas};
pub use repeatable::{REPEATABLE_MS, Repeatable, Repeatables};
pub use touched::{Touched, touched};
pub use world::{Finding, FlagState, Project, Review, SegmentState, World};
