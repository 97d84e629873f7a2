//! Where things lie: the house's root, its binaries, its source files.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a room of the house")
}

/// The directory with the binaries of this build.
fn binaries() -> PathBuf {
    let this = std::env::current_exe().expect("a running program has a path");
    let directory = this.parent().expect("a file is in a directory");
    if directory.ends_with("deps") {
        directory.parent().expect("deps is in one").to_owned()
    } else {
        directory.to_owned()
    }
}

/// A binary of this package.
pub fn own_binary(name: &str) -> PathBuf {
    let path = binaries().join(name);
    assert!(path.exists(), "{} is built together with the tests", path.display());
    path
}

/// The `fairlock` binary: `FAIRLOCK_BIN`, else the one of this build, brought up to date first.
///
/// # Panics
/// When it cannot be built.
pub fn fairlock() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("FAIRLOCK_BIN") {
            return PathBuf::from(given);
        }
        let directory = binaries();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "fairlock-cli"]).current_dir(root());
        build.arg("--target-dir").arg(directory.parent().expect("a profile is in a target directory"));
        if directory.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the fairlock binary can be built");
        directory.join("fairlock")
    })
}

/// Every `.rs` file of the house, relative to the root.
pub fn rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the house can be read") {
        let entry = entry.expect("the house can be read");
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !name.starts_with("target") {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path.strip_prefix(root()).expect("found below the root").to_owned());
        }
    }
}

/// The text of a file of the house.
///
/// # Panics
/// When it is not there.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
