//! What the protocol promises, each as a question to one state. Those about waiting ask the whole graph: see `search.rs`.

use crate::shared::Thread;
use crate::state::{Duty, Phase, Remote, Run, State};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// P1: the remote session and a client thread are never both inside with a guard that says valid.
    RemoteExcluded,
    /// P2: nor are the client's two threads.
    ThreadsExcluded,
    /// P3: whoever waits can always still be served, by steps that happen by themselves.
    Served,
    /// P4: nobody enters locally past a waiter whom it could see; at most one hold that began before he was visible ends
    /// after.
    FirstComeFirstServed,
    /// P4, for endless tries: a thread takes and undoes the word at most once when a waiter is visible.
    WordNotHidden,
    /// P5: no local acquisition of a word that is not, or no longer, granted.
    OwnWordOnly,
    /// P6: a guard never says lost while the server counts its grant.
    NoFalseAlarm,
}

impl Promise {
    /// The first promise this state breaks.
    pub(crate) fn broken_by(state: &State, run: &Run) -> Option<Self> {
        let inside = Thread::BOTH.map(|thread| state.thread(thread).is_inside());
        if inside == [false, false] {
            return (state.passing_takes > 2).then_some(Self::WordNotHidden);
        }
        let lost = Thread::BOTH.map(|thread| inside[thread as usize] && state.guard_says_lost(thread, run));
        let any = |question: &dyn Fn(Thread) -> bool| {
            Thread::BOTH.iter().any(|&thread| inside[thread as usize] && question(thread))
        };
        let server = &state.server;
        if state.remote == Remote::Inside && any(&|thread| !lost[thread as usize]) {
            return Some(Self::RemoteExcluded);
        }
        if inside == [true, true] && lost == [false, false] {
            return Some(Self::ThreadsExcluded);
        }
        let settled = state.memory.alive && !matches!(server.duty, Duty::Ending | Duty::Dead);
        if settled && any(&|thread| state.is_granted(thread) && lost[thread as usize]) {
            return Some(Self::NoFalseAlarm);
        }
        if any(&|thread| state.thread(thread).seen.overtook) || state.bypasses > 1 {
            return Some(Self::FirstComeFirstServed);
        }
        if state.memory.alive && any(&|thread| state.thread(thread).seen.foreign) {
            return Some(Self::OwnWordOnly);
        }
        (state.passing_takes > 2).then_some(Self::WordNotHidden)
    }
}

/// Who may wait, and must be served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waits {
    Remote,
    Thread(Thread),
}

impl Waits {
    pub(crate) const ALL: [Self; 3] = [Self::Remote, Self::Thread(Thread::T0), Self::Thread(Thread::T1)];

    pub(crate) fn is_waiting(self, state: &State) -> bool {
        match self {
            Self::Remote => state.remote == Remote::Waiting,
            Self::Thread(thread) => state.thread(thread).phase == Phase::Await,
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RemoteExcluded => {
                "P1: the remote session and a client thread both inside, the guard says valid"
            }
            Self::ThreadsExcluded => "P2: both client threads inside, both guards say valid",
            Self::Served => "P3: somebody waits for ever",
            Self::FirstComeFirstServed => "P4: a local entry past a waiter",
            Self::WordNotHidden => "P4: tries hide the word from the server",
            Self::OwnWordOnly => "P5: a word entered that is not granted",
            Self::NoFalseAlarm => "P6: the guard says lost, the server counts the grant",
        })
    }
}
