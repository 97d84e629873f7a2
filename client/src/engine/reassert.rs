//! A server that has lost its memory, and says so: the session goes on as another one, whose guards show what they held.
//!
//! Until everything is shown the old deadline counts, and whoever could not be taken on is lost before it moves. This
//! waits for answers, like the opening of a session: nothing of the old session can be kept alive meanwhile but by this.

use super::core::Core;
use super::opening::{self, Opened};
use super::session::Session;
use crate::clock;
use crate::dial::{self, Wire};
use crate::error::ConnectError;
use crate::session::Hold;
use crate::transport::Target;
use fairlock_protocol::handshake::FEATURE_PROOF;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::request::{Acquire, Reassert};
use fairlock_protocol::wire::FLAG_KEPT;
use fairlock_protocol::{
    GrantId, Hello, Refusal, Reply, Request, Role, SessionId, ShardId, Tick, Wait, Welcome,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Claims that are made before the first answer is waited for; a server keeps answers to a thousand.
const CLAIMS_AT_ONCE: usize = 256;

/// How it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescue {
    /// The session goes on.
    GoesOn,
    /// No server could be asked; there is time to try again.
    Again,
    /// It is over.
    Over,
}

/// What one stream shows.
struct Claims {
    /// The number before those it may use.
    before: u64,
    holds: Vec<Arc<Hold>>,
}

/// What came of it: kept replies received, and grants by the number they had.
type Shown = (u64, HashMap<GrantId, Grant>);

/// Has the session go on as another one, if a server can be found that takes its guards on.
pub(super) fn rescue(core: &Core, session: &Arc<Session>) -> Rescue {
    let Ok(deadline) = session.lease.check(clock::now()) else { return Rescue::Over };
    session.lanes.iter().for_each(|lane| lane.break_now(core, Duration::ZERO, false));
    let claims = session.lanes.iter().map(|lane| {
        let (before, holds) = lane.state().stream.claims()?;
        Some(Claims { before, holds })
    });
    let Some(claims) = claims.collect::<Option<Vec<_>>>() else { return Rescue::Over };
    let allowed = core.config.deadline.min(deadline.since(clock::now()));
    let wanted = || !core.is_closing();
    let connected = dial::first_that(&|| core.nodes.in_order(), allowed, &wanted, |target, allowed| {
        let mut wire = Wire::connect(target, allowed, &wanted)?;
        wire.sent = claims[usize::from(session.passport.home.0)].before;
        let welcome = greet(&mut wire, session.passport.home, core, &wanted)?;
        if welcome.role == Role::Backup {
            // Another node serves, or one will.
            let (refusal, detail) = (Refusal::NotPrimary, String::new());
            return Err(ConnectError::Refused { endpoint: wire.endpoint, refusal, detail });
        }
        Ok((wire, welcome, target.clone()))
    });
    let (mut wire, welcome, target) = match connected {
        Ok(connected) => connected,
        Err(ConnectError::Closed) => return Rescue::Over,
        Err(error) => {
            tracing::debug!(%error, "no server to show what is held");
            return Rescue::Again;
        }
    };
    let former = session.passport.session();
    if !takes_claims(session, former, &welcome) {
        return Rescue::Over;
    }
    // Read before OPEN can be on its way: the new lease counts from here.
    let sent = clock::now();
    let opened = match opening::say_open(&core.config, &mut wire, (&core.nodes, &target), &wanted) {
        Err(error) if error.refusal() == Some(Refusal::NotPrimary) => return Rescue::Again,
        opened => opened,
    };
    let shown = opened.and_then(|opened| {
        let shown = show_all(core, session, (wire, &target), &opened, (former, &claims), &wanted)?;
        Ok((opened, shown))
    });
    match shown {
        Ok((opened, shown)) => go_on(core, session, &opened, &shown, sent),
        Err(error) => {
            tracing::warn!(%error, "what is held could not be shown to a server that lost its memory");
            Rescue::Over
        }
    }
}

fn greet(
    wire: &mut Wire,
    shard: ShardId,
    core: &Core,
    wanted: &dyn Fn() -> bool,
) -> Result<Welcome, ConnectError> {
    let plain = Hello::to(shard);
    let hello = Hello { features: plain.features | FEATURE_PROOF, ..plain };
    Ok(wire.greet(hello, core.config.inherit.as_ref(), None, wanted)?.0)
}

/// Whether this is the session's cell in a later life, which waits for what was held.
fn takes_claims(session: &Session, former: SessionId, welcome: &Welcome) -> bool {
    session.passport.fits(session.passport.home, welcome)
        && welcome.epoch > former.epoch_number()
        && welcome.recovering_ms > 0
}

/// Shows everything, on the connection the new session was opened on and on one to each other shard.
fn show_all(
    core: &Core,
    session: &Session,
    (mut home, target): (Wire, &Target),
    opened: &Opened,
    (former, claims): (SessionId, &[Claims]),
    wanted: &dyn Fn() -> bool,
) -> Result<Vec<Shown>, ConnectError> {
    let mut all = Vec::new();
    home.kept = opened.kept.into();
    for (lane, claims) in session.lanes.iter().zip(claims) {
        if lane.shard == session.passport.home {
            all.push(show(&mut home, former, claims, wanted)?);
            continue;
        }
        if claims.holds.is_empty() {
            all.push((0, HashMap::new()));
            continue;
        }
        let mut wire = Wire::connect(target, home.until.since(clock::now()), wanted)?;
        greet(&mut wire, lane.shard, core, wanted)?;
        wire.sent = claims.before;
        wire.ask(&Request::Resume { session: opened.session, secret: opened.secret, received: 0 }, wanted)?;
        let resumed = wire.answer(wanted, |reply, _, _| matches!(reply, Reply::Resumed { .. }))?;
        if !resumed {
            let endpoint = wire.endpoint.clone();
            let said = "something else";
            return Err(ConnectError::OutOfTurn { endpoint, said, expected: "RESUMED" });
        }
        all.push(show(&mut wire, former, claims, wanted)?);
    }
    Ok(all)
}

/// Shows the holds of one stream. What is refused is not held on; that is no error here.
fn show(
    wire: &mut Wire,
    former: SessionId,
    claims: &Claims,
    wanted: &dyn Fn() -> bool,
) -> Result<Shown, ConnectError> {
    let mut taken_on = HashMap::new();
    for part in claims.holds.chunks(CLAIMS_AT_ONCE) {
        let mut asked = HashMap::new();
        for hold in part {
            // Given back, or changed, since it was listed.
            let Some((token, proof)) = hold.claim() else { continue };
            let acquire = acquire(hold);
            let number =
                wire.ask(&Request::Reassert(Reassert { session: former, token, proof, acquire }), wanted)?;
            asked.insert(number, hold.grant());
        }
        while !asked.is_empty() {
            let (number, granted, kept) = wire.answer(wanted, |reply, flags, number| match reply {
                Reply::Granted(granted) => (number, Some(*granted), flags & FLAG_KEPT != 0),
                _ => (number, None, flags & FLAG_KEPT != 0),
            })?;
            wire.kept += u64::from(kept);
            let Some(former) = asked.remove(&number) else { continue };
            let Some(granted) = granted else {
                tracing::warn!(grant = former.get(), "the server does not take a lock on that was held");
                continue;
            };
            taken_on.insert(former, granted);
        }
    }
    Ok((wire.kept, taken_on))
}

/// How a hold is held on: as it is held now.
fn acquire(hold: &Hold) -> Acquire<'_> {
    let spec = &hold.spec;
    Acquire {
        resource: spec.resource().expect("names are checked before a request is made"),
        mode: hold.facts().mode,
        priority: spec.priority,
        wait: Wait::Try,
        owner: spec.owner,
        reentrant: spec.reentrant,
        notify: spec.notify,
        cacheable: false,
        lock_delay_ms: spec.lock_delay_ms,
        max_hold_ms: spec.max_hold_ms,
        label: spec.label.as_bytes(),
    }
}

/// Everything was shown: the session is another one. Each lane takes it up on a connection of its own, as after any other
/// break.
fn go_on(core: &Core, session: &Arc<Session>, opened: &Opened, shown: &[Shown], sent: Tick) -> Rescue {
    if opened.ttl != session.lease.ttl() || opened.home != session.passport.home {
        return Rescue::Over;
    }
    session.passport.becomes(opened.session, opened.secret);
    let now = clock::now();
    for (lane, (received, taken_on)) in session.lanes.iter().zip(shown) {
        let events = {
            let mut state = lane.state();
            state.stream.goes_on(now, *received, taken_on);
            state.redial = now;
            state.stream.take_events()
        };
        session.follow(core, lane, events, false);
    }
    // Only now, when nobody is left who was not taken on.
    if !session.lease.renew(clock::now(), sent) {
        return Rescue::Over;
    }
    session.lease.moved();
    let count: usize = shown.iter().map(|(_, taken_on)| taken_on.len()).sum();
    tracing::warn!(session = %opened.session, count, "the server lost its memory; what was held is held on");
    session.unknown.store(false, Ordering::Release);
    Rescue::GoesOn
}
