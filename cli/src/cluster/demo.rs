//! `cluster demo`: a cell of several nodes on this machine, with an etcd of its own, to watch and to do harm to.
//!
//! Everything it starts ends with it, whatever ends it (`leash.rs`), and what it writes lies in one directory that it
//! removes. It decides nothing: what it shows is what the nodes say of themselves.

mod scene;
mod show;
mod stage;

use crate::args::{DemoArgs, Reach};
use crate::failure::Failure;
use crate::run::readiness;
use crate::run::signals::{ENDING, Signals};
use rustix::fd::{AsFd, BorrowedFd};
use scene::Scene;
use show::Show;
use stage::Stage;
use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

/// Pause between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long a node stays dead when it is started again by itself.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// Shows a cell until it is ended.
///
/// # Errors
/// 69 without etcd, and what starting the processes or writing met.
pub(super) fn demo(order: &DemoArgs, reach: &Reach) -> Result<u8, Failure> {
    let signals = Signals::catch(&ENDING).map_err(|error| Failure::system("catch signals", &error))?;
    let mut stage = Stage::build(order.nodes)?;
    let mut show = Show::new(reach.json, &stage);
    show.begin(&stage, order)?;
    let begun = Instant::now();
    let mut typed = Typed::new();
    let mut before = Scene::default();
    loop {
        stage.reap()?;
        if order.restart {
            stage.start_dead(Some(RESTART_AFTER))?;
        }
        let scene = Scene::of(&mut stage);
        show.update(&stage, &scene, scene != before)?;
        before = scene;
        let left = order.seconds.map(|most| most.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let patience = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        readiness::wait([Some(signals.as_fd()), typed.descriptor()], Some(patience));
        if !signals.take().is_empty() {
            break;
        }
        if typed.take() {
            stage.start_dead(None)?;
        }
    }
    drop(stage);
    show.end()?;
    Ok(0)
}

/// Whether Enter was pressed, where a person sits.
struct Typed(Option<std::io::Stdin>);

impl Typed {
    fn new() -> Typed {
        let stdin = std::io::stdin();
        Typed(stdin.is_terminal().then_some(stdin))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    fn take(&mut self) -> bool {
        let Some(descriptor) = self.descriptor() else { return false };
        if !readiness::wait([Some(descriptor)], Some(Duration::ZERO))[0] {
            return false;
        }
        // A terminal gives whole lines; what they say does not matter.
        if let Some(Ok(1..)) = self.0.as_mut().map(|stdin| stdin.lock().read(&mut [0; 1024])) {
            return true;
        }
        self.0 = None;
        false
    }
}
