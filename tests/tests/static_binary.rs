//! One static file is what an operator installs: the command the README documents builds it, it asks for no loader and
//! no library, and it starts a server that grants a lock.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fairlock_tests::scratch::Scratch;
use fairlock_tests::workspace;

/// Ends the server however the test ends.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The line of the README that builds the static binary.
fn documented_command() -> String {
    let readme = std::fs::read_to_string(workspace::root().join("README.md")).expect("the README is there");
    let is_it = |line: &&str| line.contains("crt-static") && line.contains("cargo build --release");
    readme.lines().find(is_it).expect("the README documents the static build").to_owned()
}

/// Builds it, into a folder of its own so that no other build's flags are mixed with it.
fn build() -> PathBuf {
    let target = workspace::root().join("target").join("static");
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(documented_command())
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", &target);
    let output = command.stdin(Stdio::null()).output().expect("a shell runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("x86_64-unknown-linux-gnu/release/fairlock")
}

/// Kinds of the program headers of a 64-bit little-endian ELF file.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    let number = |at: usize, length: usize| {
        elf[at..at + length].iter().rev().fold(0_u64, |sum, &byte| (sum << 8) | u64::from(byte))
    };
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kind = |index: u64| {
        let at = usize::try_from(table + index * size).expect("within the file");
        u32::try_from(number(at, 4)).expect("four bytes")
    };
    (0..count).map(kind).collect()
}

#[test]
fn the_documented_command_builds_one_static_file_that_serves() {
    const PT_INTERP: u32 = 3;
    let binary = build();
    let headers = program_headers(&std::fs::read(&binary).expect("it was built"));
    assert!(!headers.is_empty() && !headers.contains(&PT_INTERP), "it asks for a loader: {headers:?}");

    let home = Scratch::new();
    let mut serve = Command::new(&binary);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--socket"]).arg(home.join("s"));
    serve.arg("--state-dir").arg(home.join("state")).stdin(Stdio::null());
    let mut server = Served(serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs"));
    let mut ready = String::new();
    BufReader::new(server.0.stdout.take().expect("piped above"))
        .read_line(&mut ready)
        .expect("it says something");
    assert!(ready.contains("\"event\":\"ready\""), "{ready:?}");

    let mut run = Command::new(&binary);
    run.arg("--endpoint").arg(format!("unix:{}", home.join("s").display()));
    let output =
        run.args(["run", "demo", "--", "sh", "-c", "echo $FAIRLOCK_TOKEN"]).output().expect("it runs");
    let token = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && token.trim().parse::<u64>().is_ok_and(|token| token > 0),
        "{output:?}"
    );
}
