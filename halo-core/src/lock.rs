//! Directories that one process has to itself.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Name of the file that is locked. It stays when the lock is given back.
const FILE: &str = "lock";

/// A directory that nobody else holds, in this process or another, until this is dropped or the process ends.
///
/// The lock is advisory: it keeps out those who ask for it.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes a directory. It is created when it is not there, readable for its owner only.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] while somebody holds it; [`TryLockError::Error`] when the directory or the file
    /// `lock` in it cannot be created or locked.
    pub fn acquire(directory: &Path) -> Result<Self, TryLockError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(TryLockError::Error)?;
        let file = File::create(directory.join(FILE)).map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }
}

impl Drop for DirectoryLock {
    /// Closing is not enough: a child that is just being started holds the same open file until it executes its program.
    fn drop(&mut self) {
        // Should this fail, the lock ends with the last of those who hold the file.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_is_held_once_and_given_back_at_once() {
        let parent = std::env::temp_dir().join(format!("halo-core-lock-{}", std::process::id()));
        let directory = parent.join("deep");
        let lock = DirectoryLock::acquire(&directory).unwrap();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(DirectoryLock::acquire(&directory), Err(TryLockError::WouldBlock)));
        // As a child would hold it that is just being started.
        let inherited = lock.0.try_clone().unwrap();
        drop(lock);
        drop(DirectoryLock::acquire(&directory).unwrap());
        drop(inherited);
        assert!(matches!(DirectoryLock::acquire(&directory.join(FILE)), Err(TryLockError::Error(_))));
        fs::remove_dir_all(parent).unwrap();
    }
}
