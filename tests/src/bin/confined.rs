//! Starts a program with something denied to it: `io_uring` (as container profiles do), memory without a name, barriers,
//! or descriptors; or with another network, or with a directory on a disk that is full. The program also dies with whoever started it, so that a test run that is
//! killed leaves no server behind.
//!
//! `confined [--without-uring] [--without-memfd] [--without-membarrier] [--nofile N] [--network FILE] [--full-disk DIRECTORY]
//! -- PROGRAM ARGUMENT…`

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let mut full_disk = None;
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a process may ask for that");
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--without-uring") => {
                forbid(&[libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]);
            }
            Some("--without-memfd") => forbid(&[libc::SYS_memfd_create]),
            Some("--without-membarrier") => forbid(&[libc::SYS_membarrier]),
            Some("--nofile") => {
                let number =
                    arguments.next().and_then(|text| text.to_str()?.parse().ok()).expect("--nofile N");
                setrlimit(Resource::Nofile, Rlimit { current: Some(number), maximum: Some(number) })
                    .expect("a limit may be lowered");
            }
            Some("--network") => {
                let file = arguments.next().expect("--network FILE");
                let file = std::fs::File::open(file).expect("a namespace is a file");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("whoever may make a namespace may enter it");
            }
            Some("--full-disk") => full_disk = arguments.next(),
            Some("--") => break,
            other => panic!("unknown argument {other:?}"),
        }
    }
    let program = arguments.next().expect("a program is named");
    let mut command = match &full_disk {
        None => Command::new(&program),
        Some(directory) => on_full_disk(directory, &program),
    };
    let error = command.args(arguments).exec();
    panic!("{}: {error}", program.display());
}

/// The program with a disk of its own in this place, without a byte left; it ends with the program.
fn on_full_disk(directory: &OsStr, program: &OsStr) -> Command {
    let script = "mkdir -p \"$0\" && mount -t tmpfs -o size=16k full \"$0\" && \
                  { dd if=/dev/zero of=\"$0/fill\" 2>/dev/null; exec \"$@\"; }";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).arg(directory).arg(program);
    command
}

/// These calls fail with EPERM, like those of `io_uring` under the default profile of the container engines.
fn forbid(calls: &[libc::c_long]) {
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).expect("a small number"));
    let here = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, here).expect("a sound filter");
    let program: BpfProgram = filter.try_into().expect("it compiles");
    seccompiler::apply_filter(&program).expect("filters may be added");
}
