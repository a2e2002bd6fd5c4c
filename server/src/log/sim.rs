//! A simulated disk, a test double for [`Files`]: it forgets what was not synced, as a power cut does, and fails on
//! demand. Everything it does at random follows from a seed.
//!
//! The model: bytes are durable after [`File::sync_data`], names after [`Files::sync_dir`]. At a power cut each unsynced
//! write is kept entirely, lost entirely, cut to a prefix, or kept in some of its 512-byte sectors, in any order against
//! other writes; a sector that lies behind the old end and was lost reads as zeros, or the file ends before it. Each
//! unsynced creation, renaming and removal is kept or lost. After a failed sync the unsynced bytes still read back, but
//! no later sync writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::files::{File, Files, LockError, LockGuard};

const SECTOR_BYTES: usize = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    faults: Faults,
    /// Counts power cuts: handles and locks from before one are dead.
    boot: u64,
}

#[derive(Debug, Default)]
struct Faults {
    ignore_syncs: bool,
    fail_syncs: u32,
    capacity_bytes: Option<u64>,
    operations_left: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link { name: PathBuf, inode: usize },
    Rename { from: PathBuf, to: PathBuf, inode: usize },
    Remove { name: PathBuf },
}

impl SimFiles {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk as the log takes it.
    pub fn shared(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }

    /// Makes every sync answer at once without doing anything: the control that shows that the simulation bites.
    pub fn ignore_syncs(&self) {
        self.disk.lock().faults.ignore_syncs = true;
    }

    /// Lets the next `count` syncs of file content fail; `u32::MAX` for all.
    pub fn fail_syncs(&self, count: u32) {
        self.disk.lock().faults.fail_syncs = count;
    }

    /// Lets writes fail that would make all files together larger than this. `None` takes the limit away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().faults.capacity_bytes = bytes;
    }

    /// Lets `count` more changing operations (writes, syncs, changes of names) through; from then on all fail, as if the
    /// disk had lost its power.
    pub fn stop_after(&self, count: u64) {
        self.disk.lock().faults.operations_left = Some(count);
    }

    /// Cuts the power and starts again: faults are gone, locks are free, handles from before are dead, and of what was
    /// not synced some is lost, following `seed`.
    pub fn power_cut(&self, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = self.disk.lock();
        disk.restart();
        let mut names = std::mem::take(&mut disk.durable_names);
        for change in std::mem::take(&mut disk.unsynced_names) {
            if random.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        disk.names = names.clone();
        disk.durable_names = names;
        for inode in &mut disk.inodes {
            inode.lose(&mut random);
        }
    }

    /// Ends the process but not the machine: nothing that was written is lost; locks are free, handles are dead.
    pub fn kill(&self) {
        self.disk.lock().restart();
    }

    /// Changes one byte of a file, on the disk and in memory.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip(&self, path: &Path, offset: usize, xor: u8) {
        let mut disk = self.disk.lock();
        let inode = disk.names[path];
        let inode = &mut disk.inodes[inode];
        inode.live[offset] ^= xor;
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= xor;
        }
    }

    /// A file's present content.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.names.get(path).map(|&inode| disk.inodes[inode].live.clone())
    }

    /// All present files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk.lock().names.keys().cloned().collect()
    }

    fn handle(&self, disk: &Disk, inode: usize) -> Arc<dyn File> {
        Arc::new(SimFile { disk: Arc::clone(&self.disk), inode, boot: disk.boot })
    }
}

impl Disk {
    fn restart(&mut self) {
        self.faults = Faults::default();
        self.locked.clear();
        self.boot += 1;
    }

    /// Called before every changing operation.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.faults.operations_left {
            Some(0) => Err(io::Error::other("simulated power cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        let linked: BTreeSet<usize> = self.names.values().copied().collect();
        linked.iter().map(|&inode| self.inodes[inode].live.len() as u64).sum()
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Link { name, .. } | Self::Rename { to: name, .. } | Self::Remove { name }) = self;
        name.parent() == Some(dir)
    }
}

fn write_into(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Inode {
    fn change(&mut self, change: Change) {
        match &change {
            Change::Write { offset, bytes } => write_into(&mut self.live, *offset, bytes),
            Change::SetLen(len) => self.live.resize(*len, 0),
        }
        self.unsynced.push(change);
    }

    fn lose(&mut self, random: &mut StdRng) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { offset, bytes } => keep_some(&mut self.durable, offset, &bytes, random),
                Change::SetLen(len) if random.random_bool(0.5) => self.durable.resize(len, 0),
                Change::SetLen(_) => {}
            }
        }
        self.live = self.durable.clone();
    }
}

/// Applies of one unsynced write what survives a power cut.
fn keep_some(content: &mut Vec<u8>, offset: usize, bytes: &[u8], random: &mut StdRng) {
    match random.random_range(0..4) {
        0 => {}
        1 => write_into(content, offset, bytes),
        2 => write_into(content, offset, &bytes[..random.random_range(0..=bytes.len())]),
        _ => {
            // The length may have become durable though sectors did not: they read as zeros.
            if random.random_bool(0.5) && content.len() < offset + bytes.len() {
                content.resize(offset + bytes.len(), 0);
            }
            let mut start = 0;
            while start < bytes.len() {
                let end = (start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES).min(bytes.len());
                if random.random_bool(0.5) {
                    write_into(content, offset + start, &bytes[start..end]);
                }
                start = end;
            }
        }
    }
}

impl Files for SimFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        for dir in dir.ancestors() {
            disk.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        disk.operate()?;
        if disk.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.change_names(NameChange::Link { name: path.to_owned(), inode });
        Ok(self.handle(&disk, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = self.disk.lock();
        let inode = *disk.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(self.handle(&disk, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operate()?;
        let inode = *disk.names.get(from).ok_or(ErrorKind::NotFound)?;
        disk.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operate()?;
        if !disk.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        disk.change_names(NameChange::Remove { name: path.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        if !disk.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let names = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.operate()?;
        if disk.faults.ignore_syncs {
            return Ok(());
        }
        let disk = &mut *disk;
        let (synced, rest) = std::mem::take(&mut disk.unsynced_names).into_iter().partition(|change| change.is_in(dir));
        disk.unsynced_names = rest;
        for change in Vec::from_iter::<Vec<NameChange>>(synced) {
            change.apply(&mut disk.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>, LockError> {
        let mut disk = self.disk.lock();
        if !disk.locked.insert(path.to_owned()) {
            return Err(LockError::Held { pid: Some(std::process::id()) });
        }
        Ok(Box::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned(), boot: disk.boot }))
    }
}

#[derive(Debug)]
struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
    boot: u64,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        if disk.boot == self.boot {
            disk.locked.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    boot: u64,
}

impl SimFile {
    fn alive(&self) -> io::Result<parking_lot::MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.boot != self.boot {
            return Err(io::Error::other("a handle from before the simulated restart"));
        }
        Ok(disk)
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.alive()?;
        let content = disk.inodes[self.inode].live.get(offset as usize..).unwrap_or(&[]);
        let len = content.len().min(buffer.len());
        buffer[..len].copy_from_slice(&content[..len]);
        Ok(len)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.operate()?;
        let (used, len) = (disk.used_bytes(), disk.inodes[self.inode].live.len() as u64);
        let growth = (offset + bytes.len() as u64).saturating_sub(len);
        let room = disk.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let missing = growth.saturating_sub(room);
        let fitting = bytes.len() - (missing as usize).min(bytes.len());
        if fitting > 0 {
            let bytes = bytes[..fitting].to_vec();
            disk.inodes[self.inode].change(Change::Write { offset: offset as usize, bytes });
        }
        if missing > 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.operate()?;
        if disk.faults.ignore_syncs {
            return Ok(());
        }
        let failing = disk.faults.fail_syncs > 0;
        disk.faults.fail_syncs =
            disk.faults.fail_syncs.saturating_sub(u32::from(failing && disk.faults.fail_syncs < u32::MAX));
        let inode = &mut disk.inodes[self.inode];
        let unsynced = std::mem::take(&mut inode.unsynced);
        if failing {
            return Err(io::Error::other("simulated sync failure"));
        }
        for change in unsynced {
            match change {
                Change::Write { offset, bytes } => write_into(&mut inode.durable, offset, &bytes),
                Change::SetLen(len) => inode.durable.resize(len, 0),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.alive()?;
        disk.operate()?;
        disk.inodes[self.inode].change(Change::SetLen(len as usize));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.inodes[self.inode].live.len() as u64)
    }
}
