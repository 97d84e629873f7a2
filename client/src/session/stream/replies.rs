//! What each message of a server means to a stream.
//!
//! The order inside one frame matters: whether the lease lives is looked at before its renewal is counted, so a grant
//! that arrives after the deadline goes back even when it carries the confirmation that came too late.

use super::{
    Answer, Ask, Bundle, Directions, Event, Fault, Hold, Phase, SILENT_KEPT_MAX, Stream, Whereabouts,
};
use crate::builder::Notice;
use crate::error::{Cycle, LostCause};
use fairlock_protocol::reply::{CycleEdge, Grant, Refused};
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{Class, Frame, GrantId, Refusal, Reply, Request, RequestId, Tick, Wait};
use fairlock_shm::word::Generation;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// First pause before a request is sent again, when the server named none.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a request that met a grant of its own owner is sent again; the pauses double from 1 ms.
const GIVE_WAY_TRIES: u32 = 5;
/// Confirmations of broken grants that are remembered until the server is known to have them; beyond it the
/// server's own time limit on confirmations decides.
const CONFIRMS_MAX: usize = 1024;

impl<T> Stream<T> {
    /// Takes one frame.
    ///
    /// # Errors
    /// [`Fault`]: what came cannot be right, and the connection is to be broken.
    pub(crate) fn receive(&mut self, now: Tick, frame: &Frame<'_>) -> Result<(), Fault> {
        let reply = Reply::decode(frame)?;
        match self.phase {
            Phase::Down => Err(Fault::OutOfTurn("a message before HELLO")),
            Phase::Greeting => self.greeted(now, &reply),
            Phase::Resuming(sent) => self.resumed(now, frame, &reply, sent),
            Phase::Replaying(_) | Phase::Live => self.told(now, frame, &reply),
        }
    }

    fn greeted(&mut self, now: Tick, reply: &Reply<'_>) -> Result<(), Fault> {
        match reply {
            Reply::Welcome(welcome) if self.passport.fits(self.shard, welcome) => {
                self.passport.epoch.fetch_max(welcome.epoch, Ordering::Relaxed);
                self.phase = Phase::Down;
                let mut out = std::mem::take(&mut self.out);
                self.ask_to_resume(&mut out);
                self.out = out;
                self.phase = Phase::Resuming(now);
                Ok(())
            }
            Reply::Welcome(_) => {
                // Another cell, or one whose names are spread differently: it cannot know this session.
                self.events.push(Event::Over(LostCause::Session(Refusal::SessionUnknown)));
                Ok(())
            }
            Reply::Refused(refused) => {
                self.turned_away(refused);
                Ok(())
            }
            _ => Err(Fault::OutOfTurn("something else than WELCOME")),
        }
    }

    fn resumed(&mut self, now: Tick, frame: &Frame<'_>, reply: &Reply<'_>, sent: Tick) -> Result<(), Fault> {
        match reply {
            Reply::Resumed { following, .. } => {
                self.count_kept(frame);
                if frame.flags & FLAG_RENEWED != 0 && self.lease.renew(now, sent) && self.is_remote_home() {
                    self.lease.moved();
                }
                self.phase = Phase::Replaying(*following);
                if *following == 0 {
                    self.go_live(now);
                }
                Ok(())
            }
            Reply::Refused(refused) => {
                self.turned_away(refused);
                Ok(())
            }
            Reply::Over(refusal) => {
                self.events.push(Event::Over(LostCause::Session(*refusal)));
                Ok(())
            }
            Reply::KillAnnounced => {
                self.events.push(Event::Over(LostCause::Killed));
                Ok(())
            }
            Reply::Members(nodes) => {
                self.events.push(Event::Members((*nodes).into()));
                Ok(())
            }
            Reply::Draining => Ok(()),
            _ => Err(Fault::OutOfTurn("something else than RESUMED")),
        }
    }

    /// The session is served by its home over a stream.
    fn is_remote_home(&self) -> bool {
        self.shard == self.passport.home && self.memory.is_none()
    }

    /// The server will not take the stream up here: for ever, or for now.
    fn turned_away(&mut self, refused: &Refused<'_>) {
        self.events.push(match refused.refusal.class() {
            Class::Retry | Class::Local => elsewhere(refused),
            Class::Final | Class::SessionOver => Event::Over(LostCause::Session(refused.refusal)),
        });
    }

    /// Everything kept has come again: says what is pending, in the order in which it was first said.
    fn go_live(&mut self, now: Tick) {
        self.phase = Phase::Live;
        let awake = |whereabouts| !matches!(whereabouts, Whereabouts::Resting(until) if until > now);
        let mut ids: Vec<u64> =
            self.pending.iter().filter(|(_, p)| awake(p.whereabouts)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        for (id, grant) in self.confirms.clone() {
            self.send_confirm(id, grant);
        }
        for id in ids {
            self.send(now, id);
        }
        self.events.push(Event::Rearm);
    }

    fn count_kept(&mut self, frame: &Frame<'_>) {
        self.received += u64::from(frame.flags & FLAG_KEPT != 0);
    }

    /// A reply or a notice on a resumed stream.
    fn told(&mut self, now: Tick, frame: &Frame<'_>, reply: &Reply<'_>) -> Result<(), Fault> {
        self.count_kept(frame);
        if frame.request == RequestId::NOTICE {
            self.noticed(now, reply)?;
        } else {
            self.answered(now, frame, reply)?;
        }
        if let Phase::Replaying(left) = self.phase
            && frame.flags & FLAG_KEPT != 0
        {
            self.phase = Phase::Replaying(left.saturating_sub(1));
            if left <= 1 {
                self.go_live(now);
            }
        }
        if self.is_live() && self.received - self.acknowledged >= SILENT_KEPT_MAX {
            self.submit(now, Ask::Keepalive, None, false);
        }
        Ok(())
    }

    fn answered(&mut self, now: Tick, frame: &Frame<'_>, reply: &Reply<'_>) -> Result<(), Fault> {
        let id = frame.request.0;
        self.confirms.retain(|(confirm, _)| *confirm > id);
        let Some(pending) = self.pending.get(&id) else {
            // Answered before, or nobody's: a grant that nobody asked for must not stay.
            return self.answered_nobody(now, reply);
        };
        let alive = self.lease.check(now);
        if frame.flags & FLAG_RENEWED != 0 {
            self.lease.renew(now, pending.asked);
        }
        if let Reply::Refused(refused) = reply {
            self.refused(now, id, refused);
            return Ok(());
        }
        let fits = matches!(
            (&pending.ask, reply),
            (Ask::Acquire(_) | Ask::AcquireAll(_), Reply::Granted(_))
                | (Ask::Convert { .. }, Reply::Converted(_))
                | (Ask::Release(..), Reply::Released { .. })
                | (Ask::Cancel(_), Reply::Withdrawn { .. })
                | (Ask::Keepalive, Reply::Alive)
                | (Ask::Close, Reply::Closed)
        );
        if !fits {
            return Err(Fault::OutOfTurn("an answer of another kind than the request"));
        }
        if let (Reply::Granted(granted), Ask::AcquireAll(bundle)) = (reply, &pending.ask) {
            let bundle = Arc::clone(bundle);
            self.gather(now, id, granted, &bundle, alive);
            return Ok(());
        }
        let Some(pending) = self.forget(id) else { return Ok(()) };
        match (reply, pending.ask) {
            (Reply::Granted(granted), Ask::Acquire(spec)) => match (alive, pending.interest) {
                (Ok(_), Some(interest)) => {
                    let hold = self.take_hold(granted, || Hold::new(granted, spec, pending.asked));
                    self.events.push(Event::Answered(interest, Answer::Granted(hold)));
                }
                (alive, interest) => {
                    // Nobody waits for it any more; who enters it meanwhile has it no longer than it lasts.
                    let end = self.end_of(granted, Hold::new(granted, spec, pending.asked).end);
                    self.submit(now, Ask::Release(granted.grant, end), None, false);
                    if let (Err(cause), Some(interest)) = (alive, interest) {
                        self.events.push(Event::Answered(interest, Answer::Lost(cause)));
                    }
                }
            },
            (Reply::Converted(granted), _) => {
                if let Some(hold) = self.holds.get(&granted.grant) {
                    // Another guard of the grant has asked for less meanwhile, and may have got it by now.
                    hold.convert(granted, self.asked_of(granted.grant));
                }
                if let Some(interest) = pending.interest {
                    self.events.push(Event::Answered(interest, Answer::Converted));
                }
            }
            (Reply::Closed, _) => self.events.push(Event::Closed),
            _ => {}
        }
        Ok(())
    }

    /// One more grant of a request for several locks. Each is a hold from now on, so that it can be taken away; whoever
    /// asked is told when it was the last, and when nobody wants them all go back.
    fn gather(
        &mut self,
        now: Tick,
        id: u64,
        granted: &Grant,
        bundle: &Bundle,
        alive: Result<Tick, LostCause>,
    ) {
        let Some(pending) = self.pending.get(&id) else { return };
        let (at, asked) = (pending.gathered.len(), pending.asked);
        if pending.gathered.iter().any(|hold| hold.grant() == granted.grant) {
            return;
        }
        let hold = self.take_hold(granted, || Hold::new(granted, Arc::clone(&bundle.specs[at]), asked));
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.gathered.push(hold);
        if pending.gathered.len() < bundle.specs.len() {
            return;
        }
        let Some(pending) = self.forget(id) else { return };
        match (alive, pending.interest) {
            (Ok(_), Some(interest)) => {
                self.events.push(Event::Answered(interest, Answer::GrantedAll(pending.gathered)));
            }
            (alive, interest) => {
                for hold in &pending.gathered {
                    self.release(now, hold);
                }
                if let (Err(cause), Some(interest)) = (alive, interest) {
                    self.events.push(Event::Answered(interest, Answer::Lost(cause)));
                }
            }
        }
    }

    fn answered_nobody(&mut self, now: Tick, reply: &Reply<'_>) -> Result<(), Fault> {
        match reply {
            // What was answered before may be answered again, when it was said again; then its grant is held or on its way
            // back, and a second release would take the level of who entered it meanwhile.
            Reply::Granted(granted)
                if !self.holds.contains_key(&granted.grant) && self.end_left(granted.grant).is_none() =>
            {
                self.submit(now, Ask::Release(granted.grant, Tick(u64::MAX)), None, false);
                Ok(())
            }
            Reply::Welcome(_) | Reply::Opened { .. } | Reply::Resumed { .. } => {
                Err(Fault::OutOfTurn("a first word in the middle of the talk"))
            }
            Reply::Refused(refused) if refused.refusal.class() == Class::SessionOver => {
                self.events.push(Event::Over(LostCause::Session(refused.refusal)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn refused(&mut self, now: Tick, id: u64, refused: &Refused<'_>) {
        let refusal = refused.refusal;
        match refusal.class() {
            Class::SessionOver => {
                self.events.push(Event::Over(LostCause::Session(refusal)));
                return;
            }
            Class::Retry if leads_elsewhere(refused) && self.waits_for_another_node(id, refused) => return,
            Class::Retry if self.rests(now, id, refused) => return,
            Class::Final if refusal == Refusal::AlreadyHeld && self.gives_way(now, id) => return,
            _ => {}
        }
        let Some(pending) = self.forget(id) else { return };
        if let Some(grant) = pending.ask.converts() {
            // It is what it was, as far as nobody asks for less.
            self.believe(grant);
        }
        let cycle = refused.cycle.as_ref().map(owned);
        // A wait that ended while its request rested came to its end, not to the reason for resting.
        let ran_out = refusal.class() == Class::Retry && !pending.is_try();
        let refusal = if ran_out { Refusal::Timeout } else { refusal };
        if let Some(interest) = pending.interest {
            self.events.push(Event::Answered(interest, Answer::Refused(refusal, cycle)));
        } else if matches!(pending.ask, Ask::Close) {
            self.events.push(Event::Closed);
        }
    }

    /// Whether a request that met a grant of its own owner is sent again: a request withdrawn just before it can have
    /// been granted in that moment, and that grant is on its way back. A grant that is really held answers the same
    /// after a few tries, within 31 ms.
    fn gives_way(&mut self, now: Tick, id: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        if !pending.behind || pending.abandoned || pending.tries >= GIVE_WAY_TRIES {
            return false;
        }
        let until = now.after_millis(1 << pending.tries);
        pending.tries += 1;
        pending.whereabouts = Whereabouts::Resting(until);
        self.retry_due = Some(self.retry_due.map_or(until, |due| due.min(until)));
        self.events.push(Event::Rearm);
        true
    }

    /// Another node is to be asked. Nothing was done here, so the request is kept and said again there, after the RESUME,
    /// unless nobody wants it any more.
    fn waits_for_another_node(&mut self, id: u64, refused: &Refused<'_>) -> bool {
        self.events.push(elsewhere(refused));
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        pending.whereabouts = Whereabouts::Sent;
        !(pending.abandoned || matches!(pending.ask, Ask::Keepalive))
    }

    /// Whether a request that was refused for the moment is kept, to be sent again.
    fn rests(&mut self, now: Tick, id: u64, refused: &Refused<'_>) -> bool {
        let Some(pending) = self.pending.get_mut(&id) else { return false };
        // A withdrawal that was not taken is said again, else its request would wait on.
        if pending.abandoned || matches!(pending.ask, Ask::Keepalive) {
            return false;
        }
        let for_long =
            matches!(refused.refusal, Refusal::Recovering | Refusal::Draining | Refusal::Unavailable);
        if pending.is_try() && for_long {
            return false;
        }
        let pause = match refused.retry_after_ms {
            0 => self.jitter.backoff(pending.tries, RETRY_PAUSE, RETRY_PAUSE_MAX),
            ms => Duration::from_millis(ms.into()),
        };
        let mut until = now.after(pause);
        if let Some(Wait::Millis(ms)) = pending.ask.wait() {
            let end = pending.asked.after_millis(ms);
            if end <= now {
                return false;
            }
            until = until.min(end);
        }
        pending.tries += 1;
        pending.whereabouts = Whereabouts::Resting(until);
        self.retry_due = Some(self.retry_due.map_or(until, |due| due.min(until)));
        self.events.push(Event::Rearm);
        true
    }

    fn noticed(&mut self, now: Tick, reply: &Reply<'_>) -> Result<(), Fault> {
        match *reply {
            Reply::Blocking { grant, wanted, waiters } => {
                self.events.push(Event::Notice(Notice::Blocking { grant, wanted, waiters }));
            }
            Reply::Broken { grant, forced } => {
                if self.renounce(now, grant, self.confirms_late && !forced) {
                    // Confirmed when the one inside has left.
                } else if let Some(hold) = self.holds.get(&grant).filter(|_| self.confirms_late && !forced) {
                    // Lost, but in use until its guard is given back; that confirms it.
                    hold.take_away(LostCause::Broken);
                    self.events.push(Event::HoldOver(Arc::clone(hold)));
                    self.broken.insert(grant);
                } else {
                    self.take_grant_away(grant, LostCause::Broken);
                    self.confirm(grant);
                }
                self.events.push(Event::Notice(Notice::Broken { grant, forced }));
            }
            Reply::Cached { grant, word, generation } => {
                self.keep(now, grant, (word, Generation(generation)))?;
            }
            Reply::HoldOver { grant } => self.take_grant_away(grant, LostCause::MaxHold),
            Reply::KillAnnounced => self.events.push(Event::Over(LostCause::Killed)),
            Reply::Over(refusal) => self.events.push(Event::Over(LostCause::Session(refusal))),
            Reply::Draining => self.events.push(Event::Notice(Notice::Draining)),
            // A refusal that answers no request is the server's last word on this connection, not on the session.
            Reply::Refused(ref refused) if refused.refusal.class() == Class::SessionOver => {
                self.events.push(Event::Over(LostCause::Session(refused.refusal)));
            }
            Reply::Refused(ref refused) => self.events.push(elsewhere(refused)),
            Reply::Members(nodes) => self.events.push(Event::Members(nodes.into())),
            _ => return Err(Fault::OutOfTurn("an answer without its request")),
        }
        Ok(())
    }

    /// Tells that a broken grant is no longer used. Nothing answers it; it is said again on the next connection
    /// unless an answer to something later shows that it arrived.
    pub(super) fn confirm(&mut self, grant: GrantId) {
        if self.ended {
            return;
        }
        let id = self.next;
        self.next += 1;
        // Only what is remembered is bounded: the server asks for the others again after a RESUME.
        if self.confirms.len() < CONFIRMS_MAX {
            self.confirms.push((id, grant));
        }
        if self.is_live() {
            self.send_confirm(id, grant);
        }
    }

    fn send_confirm(&mut self, id: u64, grant: GrantId) {
        self.acknowledged = self.received;
        Request::Confirm(grant).encode(RequestId(id), super::low_half(self.received), &mut self.out);
    }
}

/// Whether the session lives at another node by now, or will at once.
fn leads_elsewhere(refused: &Refused<'_>) -> bool {
    matches!(refused.refusal, Refusal::NotPrimary | Refusal::EpochChanged)
        || refused.primary.is_some_and(|primary| !primary.endpoints.is_empty())
}

fn elsewhere<T>(refused: &Refused<'_>) -> Event<T> {
    Event::Elsewhere(refused.retry_after_ms, refused.primary.map(Directions::from))
}

fn owned(edge: &CycleEdge<'_>) -> Cycle {
    Cycle {
        session: edge.session,
        owner: edge.owner,
        mode: edge.mode,
        label: String::from_utf8_lossy(edge.label).into_owned(),
    }
}
