//! Grants that are entered again while their former guard is being given back.

use super::*;
use fairlock_protocol::Mode;

fn grant(reentered: bool) -> Reply<'static> {
    Reply::Granted(reply::Grant {
        grant: GrantId::from_raw(1 << 32 | 5).unwrap(),
        token: FencingToken::from_raw(9),
        fence: 8,
        mode: Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered,
        proof: None,
    })
}

fn reentrant(max_hold_ms: u32) -> Arc<Spec> {
    Arc::new(Spec { reentrant: true, ..(*spec(max_hold_ms)).clone() })
}

/// Asks for a lock that is granted.
fn held(first: Arc<Spec>) -> (Talk, RequestId, Arc<Hold>) {
    let mut talk = Talk::opened();
    let asked = talk.acquire_as(1000, 1, first);
    talk.hear_ok(1001, asked, FLAG_KEPT | FLAG_RENEWED, &grant(false));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    (talk, asked, hold)
}

/// Asks for a lock that is granted, and for it again; then gives the first guard back.
fn given_back(first: Arc<Spec>) -> (Talk, RequestId, RequestId) {
    let (mut talk, asked, hold) = held(first);
    let again = talk.acquire_as(1002, 2, reentrant(0));
    talk.stream.release(at(1003), &hold);
    talk.said();
    (talk, asked, again)
}

/// The simulation of whole cells found a guard that was valid when the server had let others in (S4).
#[test]
fn who_enters_a_grant_that_is_given_back_has_it_no_longer_than_it_lasts() {
    let (mut talk, _, again) = given_back(spec(2000));
    talk.hear_ok(1010, again, FLAG_KEPT, &grant(true));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    assert_eq!(
        hold.end,
        at(1000 + 2000 - 20 - 10),
        "the longest hold of the grant, counted from its own request"
    );
}

/// The same, when whoever asked first did not wait for the answer.
#[test]
fn who_enters_a_grant_that_nobody_waited_for_has_it_no_longer_than_it_lasts() {
    let mut talk = Talk::opened();
    let asked = talk.acquire_as(1000, 1, spec(2000));
    let again = talk.acquire_as(1002, 1, reentrant(0));
    talk.stream.abandon(at(1003), asked);
    talk.hear_ok(1010, asked, FLAG_KEPT | FLAG_RENEWED, &grant(false));
    talk.hear_ok(1010, again, FLAG_KEPT, &grant(true));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    assert_eq!(hold.end, at(1000 + 2000 - 20 - 10), "counted from the first request");
}

/// The same, when the level that is still owed is of somebody who entered it and did not wait for the answer (S4, seed 20032718).
#[test]
fn who_enters_a_grant_after_one_who_entered_it_and_left_has_it_no_longer_than_it_lasts() {
    let (mut talk, asked, again) = given_back(spec(2000));
    talk.stream.abandon(at(1004), again);
    let third = talk.acquire_as(1005, 3, reentrant(0));
    talk.hear_ok(1010, again, FLAG_KEPT, &grant(true));
    // The first guard is back; the second level is on its way.
    let released = RequestId(asked.0 + 2);
    talk.hear_ok(1011, released, 0, &Reply::Released { remaining: 1 });
    talk.hear_ok(1012, third, FLAG_KEPT, &grant(true));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    assert_eq!(hold.end, at(1000 + 2000 - 20 - 10), "the longest hold of the grant");
}

/// The simulation of whole cells found a guard that was EX again when the server had made it NL (S2).
#[test]
fn a_conversion_that_comes_late_gives_no_more_than_was_asked_for_since() {
    let (mut talk, _, again) = given_back(spec(0));
    talk.hear_ok(1010, again, FLAG_KEPT, &grant(true));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    let convert = |mode| Ask::Convert { grant: hold.grant(), mode, wait: Wait::Forever };
    let first = talk.stream.submit(at(1011), convert(Mode::EX), Some(3), false).unwrap();
    talk.stream.submit(at(1012), convert(Mode::NL), Some(4), false).unwrap();
    let Reply::Granted(converted) = grant(false) else { panic!() };
    talk.hear_ok(1013, first, FLAG_KEPT, &Reply::Converted(converted));
    assert_eq!(hold.facts().mode, Mode::NL);
}

/// The simulation of whole cells found that a request which was said again, and so answered twice, gave its grant back
/// twice: the second time from under who had entered it meanwhile (S4).
#[test]
fn an_answer_that_comes_twice_gives_nothing_back_twice() {
    let (mut talk, asked, again) = given_back(spec(0));
    talk.hear_ok(1010, asked, 0, &grant(false));
    assert_eq!(talk.said(), Vec::<String>::new(), "its grant is on its way back already");
    talk.hear_ok(1011, again, FLAG_KEPT, &grant(true));
    talk.hear_ok(1012, asked, 0, &grant(false));
    assert_eq!(talk.said(), Vec::<String>::new(), "and is held again");
    assert_eq!(talk.stream.holds.len(), 1);
}

/// A conversion was asked for and given up, its guard given back, and the grant entered again meanwhile: the server may have
/// made it weaker by now (S2).
#[test]
fn who_enters_a_grant_again_has_no_more_than_it_was_asked_to_become() {
    let (mut talk, _, hold) = held(spec(0));
    let again = talk.acquire_as(1002, 2, reentrant(0));
    let weaker = Ask::Convert { grant: hold.grant(), mode: Mode::PR, wait: Wait::Forever };
    let weaker = talk.stream.submit(at(1003), weaker, Some(3), false).unwrap();
    assert_eq!(hold.facts().mode, Mode::PR, "from the call on");
    talk.stream.abandon(at(1004), weaker);
    talk.stream.release(at(1005), &hold);
    talk.hear_ok(1010, again, FLAG_KEPT, &grant(true));
    let hold = Arc::clone(talk.stream.holds.values().next().unwrap());
    assert_eq!(hold.facts().mode, Mode::PR);
    talk.hear_ok(1011, weaker, 0, &refused(Refusal::Cancelled, 0));
    assert_eq!(hold.facts().mode, Mode::EX, "it was refused: it is what it was");
}

/// One of two conversions of a grant is refused after the other was granted: what was granted stays (S2).
#[test]
fn a_refused_conversion_undoes_none_that_was_granted() {
    let (mut talk, _, hold) = held(spec(0));
    let mut convert = |ms, mode| {
        let ask = Ask::Convert { grant: hold.grant(), mode, wait: Wait::Forever };
        talk.stream.submit(at(ms), ask, Some(3), false).unwrap()
    };
    let (first, second, third) = (convert(1002, Mode::PR), convert(1003, Mode::CR), convert(1004, Mode::NL));
    let Reply::Granted(granted) = grant(false) else { panic!() };
    let converted = Reply::Converted(reply::Grant { mode: Mode::CR, ..granted });
    talk.hear_ok(1010, second, FLAG_KEPT, &converted);
    assert_eq!(hold.facts().mode, Mode::NL, "which is asked for");
    talk.hear_ok(1011, third, 0, &refused(Refusal::BadConversion, 0));
    assert_eq!(hold.facts().mode, Mode::CR, "which was granted");
    talk.hear_ok(1012, first, 0, &refused(Refusal::BadConversion, 0));
    assert_eq!(hold.facts().mode, Mode::CR);
}
