//! Real forks. A child calls only what is allowed after fork in a program with threads, and answers by its exit code.
#![expect(unsafe_code, reason = "fork, _exit and waitpid are the subject")]

use super::*;
use std::os::fd::AsFd;

/// Forks; the child exits with what `in_child` returns, which the parent gets.
pub(crate) fn exit_code_of_child(in_child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child below calls async-signal-safe functions only, and leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
    if pid == 0 {
        let code = in_child();
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: `status` outlives the call, and the child is ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    assert!(libc::WIFEXITED(status), "the child ended by a signal: {status}");
    libc::WEXITSTATUS(status)
}

#[test]
fn a_child_knows_that_it_is_a_copy_and_the_parent_that_it_is_not() {
    let mark = ForkMark::new().unwrap();
    assert_eq!(exit_code_of_child(|| i32::from(mark.is_child())), 1);
    assert!(!mark.is_child());
}

#[test]
fn a_grandchild_knows_it_too_and_a_mark_of_the_childs_own_is_its_own() {
    let mark = ForkMark::new().unwrap();
    let code = exit_code_of_child(|| {
        let own = ForkMark::new().map_or(true, |own| own.is_child());
        let below = exit_code_of_child(|| i32::from(mark.is_child()));
        i32::from(!own && below == 1)
    });
    assert_eq!(code, 1);
}

#[test]
fn a_child_has_lost_the_listed_descriptors_and_kept_the_others() {
    let (listed, other) = io::pipe().unwrap();
    let (listed_raw, other_raw) = (listed.as_raw_fd(), other.as_raw_fd());
    let listing = close_in_child(listed.as_fd());
    assert!(listing.is_listed());
    // SAFETY: F_GETFD of a number that may be closed only reports EBADF.
    let open = |raw: RawFd| unsafe { libc::fcntl(raw, libc::F_GETFD) } >= 0;
    let code = exit_code_of_child(|| i32::from(!open(listed_raw) && open(other_raw)));
    assert_eq!(code, 1);
    assert!(open(listed_raw), "the parent keeps its own");
    drop(listing);
    assert_eq!(exit_code_of_child(|| i32::from(open(listed_raw))), 1, "no longer listed");
}
