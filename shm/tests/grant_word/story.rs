//! A counter-example as a reader wants it: one step a line, and beside it what the step changed.

use crate::memory::Processor;
use crate::search::successors;
use crate::shared::Thread;
use crate::state::{Run, State};
use crate::step::Steps;
use std::fmt::{self, Debug, Write};

/// Steps from the first state, with what changed by each.
#[derive(Debug)]
pub(crate) struct Story(Vec<(String, String)>);

impl Story {
    pub(crate) fn new(path: &[State], run: &Run) -> Self {
        let mut steps = Steps::default();
        let lines = path.windows(2).map(|pair| {
            successors(&pair[0], run, &mut steps);
            let step = steps.iter().find(|(_, next)| *next == pair[1]);
            let step = step.expect("a path goes by successors").0;
            (step.to_string(), changes(&pair[0], &pair[1]))
        });
        Self(lines.collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (step, changes)) in (1..).zip(&self.0) {
            writeln!(f, "{number:4}  {step:<58} {changes}")?;
        }
        Ok(())
    }
}

/// What a step changed, except what its own name says.
fn changes(before: &State, after: &State) -> String {
    let mut line = String::new();
    let (old, new) = (&before.memory, &after.memory);
    if old.word != new.word {
        write!(line, "word={} ", new.word).expect("a string");
    }
    changed(&mut line, "wanted", &old.wanted, &new.wanted);
    changed(&mut line, "listen", &old.listen, &new.listen);
    changed(&mut line, "alive", &old.alive, &new.alive);
    changed(&mut line, "replies", &old.replies, &new.replies);
    changed(&mut line, "voids", &old.voids, &new.voids);
    let ring = |state: &State| state.memory.ring.iter().collect::<Vec<_>>();
    changed(&mut line, "ring", &ring(before), &ring(after));
    for processor in Processor::ALL {
        let buffer = |state: &State| state.memory.buffers[processor as usize].iter().collect::<Vec<_>>();
        changed(&mut line, &format!("buffer of {processor:?}"), &buffer(before), &buffer(after));
    }
    let (old, new) = (&before.server, &after.server);
    changed(&mut line, "holder", &old.holder, &new.holder);
    changed(&mut line, "standing", &old.standing, &new.standing);
    let queue = |state: &State| state.server.queue.iter().collect::<Vec<_>>();
    changed(&mut line, "queue", &queue(before), &queue(after));
    changed(&mut line, "remote", &before.remote, &after.remote);
    for thread in Thread::BOTH {
        if !before.thread(thread).is_inside() && after.thread(thread).is_inside() {
            write!(line, "{thread:?} IS INSIDE ").expect("a string");
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn changed<T: Debug + PartialEq>(line: &mut String, name: &str, before: &T, after: &T) {
    if before != after {
        write!(line, "{name}={after:?} ").expect("a string");
    }
}
