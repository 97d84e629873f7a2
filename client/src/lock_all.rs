//! Several locks at once, all or none, over as many shards as their names are spread on.
//!
//! The shards are climbed in order, one round trip each; within a shard the server takes the locks in canonical order
//! and answers when it has all of them. Everybody climbs the same way, so two programs that each want several locks never
//! wait for each other. What was taken on lower shards is given back when a higher one refuses.

use crate::clock;
use crate::engine::{Anchor, Outcome, Slot, Wish, ask_for, ask_share, await_slot, share, undo};
use crate::error::AcquireError;
use crate::guard::Guard;
use crate::lock::patience;
use crate::owner::{fresh_owner, owner_of_this_thread};
use crate::session::{Bundle, Spec};
use fairlock_protocol::bundle::ItemsBuffer;
use fairlock_protocol::limits::LABEL_BYTES_MAX;
use fairlock_protocol::{Malformed, Mode, OwnerId, Refusal, Tick, Wait};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request for several locks, not yet sent.
///
/// ```no_run
/// use fairlock::{Client, Mode};
///
/// let client = Client::connect("tcp://127.0.0.1:7411")?;
/// let guards = client.lock_all([("accounts/7", Mode::EX), ("accounts/3", Mode::EX)]).acquire()?;
/// println!("both, under tokens {} and {}", guards[0].token().get(), guards[1].token().get());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is asked before `acquire`"]
pub struct LockAllRequest {
    anchor: Arc<Anchor>,
    /// In the order in which they were named.
    specs: Vec<Spec>,
    /// As the program said; else this thread, or this request alone.
    owner: Option<OwnerId>,
}

impl LockAllRequest {
    pub(crate) fn new<N: AsRef<[u8]>>(
        anchor: Arc<Anchor>,
        locks: impl IntoIterator<Item = (N, Mode)>,
    ) -> LockAllRequest {
        let spec = |(name, mode): (N, Mode)| Spec { mode, ..Spec::plain(name.as_ref()) };
        LockAllRequest { anchor, specs: locks.into_iter().map(spec).collect(), owner: None }
    }

    fn each(mut self, change: impl Fn(&mut Spec)) -> LockAllRequest {
        self.specs.iter_mut().for_each(change);
        self
    }

    /// In which namespace: 1 to 64 of `[a-z0-9._-]` (default `default`).
    pub fn namespace(self, namespace: impl Into<String>) -> LockAllRequest {
        let namespace = namespace.into();
        self.each(|spec| spec.namespace = namespace.as_str().into())
    }

    /// Wait at most this long for all of them together (default: for ever); zero is a try.
    pub fn wait(self, wait: Duration) -> LockAllRequest {
        self.each(|spec| spec.wait = Wait::up_to(wait))
    }

    /// For which thread or task; by default as for [`LockRequest::owner`](crate::LockRequest::owner).
    pub fn owner(mut self, owner: OwnerId) -> LockAllRequest {
        self.owner = Some(owner);
        self
    }

    /// What operators see beside this request, at most 256 bytes (default: the client's label).
    pub fn label(self, label: impl Into<String>) -> LockAllRequest {
        let label = label.into();
        self.each(|spec| spec.label = label.as_str().into())
    }

    /// Waits for all locks. The guards stand in the order in which the locks were named.
    ///
    /// # Errors
    /// [`AcquireError`], and nothing is held: [`Refusal::BadRequest`] for no lock, more than 256 or one named twice,
    /// [`Refusal::AlreadyHeld`] when the same owner holds one of them in a mode that goes not with it.
    pub fn acquire(self) -> Result<Vec<Guard>, AcquireError> {
        let owner = self.owner.unwrap_or_else(owner_of_this_thread);
        let mut climb = self.climb(owner)?;
        climb.begin(false);
        loop {
            let deadline = climb.anchor.core.config.deadline;
            let give_up = patience(climb.left(), deadline).map(|longest| clock::now().after(longest));
            let outcome = await_slot(&climb.anchor.core, &climb.slot, give_up);
            let step = match outcome {
                Some(outcome) => climb.step(outcome, false)?,
                None if matches!(climb.wait, Wait::Millis(_)) => {
                    return Err(AcquireError::Refused(Refusal::Timeout));
                }
                None => return Err(AcquireError::Unanswered { after: deadline }),
            };
            if let Some(guards) = step {
                return Ok(guards);
            }
        }
    }

    /// Takes the locks if every one of them can be had at once.
    ///
    /// # Errors
    /// [`AcquireError::Refused`] with [`Refusal::WouldBlock`] when one cannot; else as [`LockAllRequest::acquire`].
    pub fn try_acquire(self) -> Result<Vec<Guard>, AcquireError> {
        let unnamed = self.owner.is_none();
        self.wait(Duration::ZERO).acquire().map_err(|error| match error {
            // Taken is taken, also by this thread; the difference matters only to an owner who named himself.
            AcquireError::Refused(Refusal::AlreadyHeld) if unnamed => {
                AcquireError::Refused(Refusal::WouldBlock)
            }
            error => error,
        })
    }

    /// Asks now, and resolves to the guards, on any executor. Dropping the future withdraws the request and gives back
    /// what was taken.
    pub fn acquire_async(self) -> AcquiringAll {
        let owner = self.owner.unwrap_or_else(fresh_owner);
        let mut climb = self.climb(owner);
        if let Ok(climb) = &mut climb {
            climb.begin(true);
        }
        AcquiringAll { climb: Some(climb.map_err(Some)) }
    }

    /// Checks what can be refused without asking, and puts the locks into canonical order.
    fn climb(mut self, owner: OwnerId) -> Result<Climb, AcquireError> {
        let core = &self.anchor.core;
        if core.mark.is_child() || core.is_closing() {
            return Err(AcquireError::Closed);
        }
        self.specs.iter_mut().for_each(|spec| spec.owner = owner);
        let refused = |malformed| match malformed {
            Malformed::Refused(refusal) => AcquireError::Refused(refusal),
            _ => AcquireError::Refused(Refusal::BadRequest),
        };
        let resources = self.specs.iter().map(|spec| Ok((spec.resource()?, spec.mode)));
        let resources = resources.collect::<Result<Vec<_>, Refusal>>().map_err(AcquireError::Refused)?;
        // One shard might get them all: what fits there fits everywhere.
        ItemsBuffer::new(resources).map_err(refused)?;
        if self.specs.iter().any(|spec| spec.label.len() > LABEL_BYTES_MAX) {
            return Err(AcquireError::Refused(Refusal::TooLong));
        }
        let wait = self.specs.first().map_or(Wait::Try, |spec| spec.wait);
        let mut named: Vec<(usize, Arc<Spec>)> = self.specs.into_iter().map(Arc::new).enumerate().collect();
        named.sort_by(|(_, a), (_, b)| a.place().cmp(&b.place()));
        let (places, specs): (Vec<usize>, Vec<Arc<Spec>>) = named.into_iter().unzip();
        let guards = places.iter().map(|_| None).collect();
        let begun = clock::now();
        Ok(Climb { anchor: self.anchor, specs: specs.into(), places, wait, begun, guards, slot: Slot::new() })
    }
}

/// A request on its way up the shards. Dropping it gives back what it has.
#[derive(Debug)]
struct Climb {
    anchor: Arc<Anchor>,
    /// In canonical order.
    specs: Arc<[Arc<Spec>]>,
    /// Where each was named.
    places: Vec<usize>,
    wait: Wait,
    begun: Tick,
    /// What is held, in the order in which it was named.
    guards: Vec<Option<Guard>>,
    /// Where the answer of the present shard arrives.
    slot: Arc<Slot>,
}

impl Climb {
    /// Asks the first shard. `tended`: nobody will read for it.
    fn begin(&mut self, tended: bool) {
        let wish = Wish::FirstOf(Arc::clone(&self.specs), self.wait);
        ask_for(&self.anchor.core, wish, &self.slot, tended);
    }

    /// What is left of the wait for all; never so little that it would become a try.
    fn left(&self) -> Wait {
        match self.wait {
            Wait::Millis(ms) => {
                let passed = clock::now().since(self.begun).as_millis();
                Wait::Millis(ms.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX)).max(1))
            }
            whole => whole,
        }
    }

    /// A shard has answered: the guards when it was the last, `None` when the next one is asked.
    fn step(&mut self, outcome: Outcome, tended: bool) -> Result<Option<Vec<Guard>>, AcquireError> {
        let (session, holds) = match outcome {
            Outcome::GrantedAll(session, holds) => (session, holds),
            Outcome::Failed(error) => return Err(error),
            Outcome::Granted(..) | Outcome::Converted => unreachable!("several were asked for"),
        };
        let shard = self.slot.place().expect("what was granted was asked somewhere").shard;
        let places = self.specs.iter().zip(&self.places);
        let here = places.filter(|(spec, _)| session.lane_of(spec).shard == shard).map(|(_, &place)| place);
        let here: Vec<usize> = here.collect();
        assert_eq!(here.len(), holds.len(), "a grant for each lock of the shard");
        for (place, hold) in here.into_iter().zip(holds) {
            self.guards[place] = Some(Guard::new(Arc::clone(&self.anchor), Arc::clone(&session), hold));
        }
        let Some((next, specs)) = share(&session, &self.specs, Some(shard)) else {
            let guards: Option<Vec<Guard>> = std::mem::take(&mut self.guards).into_iter().collect();
            return Ok(Some(guards.expect("every shard has answered")));
        };
        self.slot = Slot::new();
        let bundle = Arc::new(Bundle { specs, wait: self.left() });
        if ask_share(&self.anchor.core, &session, next, bundle, &self.slot, tended) {
            return Ok(None);
        }
        let cause = session.lease.check(clock::now()).err();
        Err(cause.map_or(AcquireError::Closed, AcquireError::from_lost))
    }
}

/// Several locks being waited for. Dropping it withdraws the request and gives back what was taken.
#[derive(Debug)]
#[must_use = "dropping it withdraws the request"]
pub struct AcquiringAll {
    /// The climb, or why it never began; `None` once it is over.
    climb: Option<Result<Climb, Option<AcquireError>>>,
}

impl Future for AcquiringAll {
    type Output = Result<Vec<Guard>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match self.climb.as_mut().expect("a future is not polled after it was ready") {
            Err(error) => Err(error.take().unwrap_or(AcquireError::Closed)),
            Ok(climb) if climb.anchor.core.mark.is_child() => Err(AcquireError::Closed),
            Ok(climb) => loop {
                let Some(outcome) = climb.slot.take_or_wake(context.waker()) else { return Poll::Pending };
                match climb.step(outcome, true) {
                    Ok(None) => {}
                    Ok(Some(guards)) => break Ok(guards),
                    Err(error) => break Err(error),
                }
            },
        };
        self.climb = None;
        Poll::Ready(result)
    }
}

impl Drop for AcquiringAll {
    fn drop(&mut self) {
        if let Some(Ok(climb)) = &self.climb
            && !climb.anchor.core.mark.is_child()
        {
            drop(undo(&climb.anchor.core, &climb.slot));
        }
    }
}
