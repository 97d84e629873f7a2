//! What one request had: a mode under a token, from a moment on, and until when that is certain.
//!
//! A guard is certain while its client had found it valid or could not have lost it but by time. Whoever lost it for
//! another reason, or was never heard of again, had it certainly only until the last look.

use super::report::Place;
use fairlock_protocol::Mode;

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody said.
    Open,
    /// Given back, or changed into another mode, at this moment.
    Given(u64),
    /// Found lost at this moment, when time had run out.
    Elapsed(u64),
    /// Found lost for another reason, at an earlier moment nobody knows.
    Taken,
}

/// A mode held without a change.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Index of the request.
    pub(super) request: u32,
    /// Index of the lock.
    pub(super) resource: u32,
    /// Index of the client.
    pub(super) client: u32,
    /// For whom inside of the client.
    pub(super) owner: u64,
    pub(super) mode: Mode,
    /// 0 is none.
    pub(super) token: u64,
    pub(super) fence: Option<u64>,
    /// No earlier did it ask for what gave it this token.
    pub(super) asked_ns: u64,
    /// No later did it stand in the queue; `None` when it did not come through the queue's end.
    pub(super) queued_ns: Option<u64>,
    /// From when on it knew.
    pub(super) from_ns: u64,
    /// When it was last found valid.
    pub(super) valid_ns: u64,
    /// D.
    pub(super) until_ns: u64,
    pub(super) end: End,
    /// The event that began it.
    pub(super) place: Place,
}

impl Span {
    /// The last moment at which it was certainly held; `None` when it never was.
    pub(super) fn certain_end(&self) -> Option<u64> {
        let end = match self.end {
            End::Given(at_ns) | End::Elapsed(at_ns) => at_ns,
            End::Open | End::Taken => self.valid_ns,
        };
        let end = end.min(self.until_ns);
        (self.until_ns > self.from_ns && end >= self.from_ns).then_some(end)
    }

    /// The moment before which nobody can be let in although nothing is heard of it: D, unless it was given back or taken.
    /// Only where silence alone ends a session.
    pub(super) fn reserved_end(&self) -> Option<u64> {
        match self.end {
            End::Open | End::Elapsed(_) => (self.until_ns > self.from_ns).then_some(self.until_ns),
            End::Given(_) | End::Taken => None,
        }
    }

    /// Whether both are one holder's: one grant, entered twice by one owner.
    pub(super) fn is_of_the_holder_of(&self, other: &Span) -> bool {
        (self.client, self.owner, self.token) == (other.client, other.owner, other.token)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An exclusive span of client and token, from 10 on, valid at 12, D at 30.
    pub(in crate::history) fn span(client: u32, token: u64) -> Span {
        Span {
            request: client,
            resource: 0,
            client,
            owner: 0,
            mode: Mode::EX,
            token,
            fence: None,
            asked_ns: 5,
            queued_ns: Some(10),
            from_ns: 10,
            valid_ns: 12,
            until_ns: 30,
            end: End::Open,
            place: Place::default(),
        }
    }

    #[test]
    fn a_hold_is_certain_to_its_release_its_deadline_or_the_last_look() {
        let ends =
            |end| (Span { end, ..span(1, 1) }.certain_end(), Span { end, ..span(1, 1) }.reserved_end());
        assert_eq!(ends(End::Given(20)), (Some(20), None));
        assert_eq!(ends(End::Given(40)), (Some(30), None));
        assert_eq!(ends(End::Elapsed(35)), (Some(30), Some(30)));
        assert_eq!(ends(End::Taken), (Some(12), None));
        assert_eq!(ends(End::Open), (Some(12), Some(30)));
    }

    #[test]
    fn a_grant_that_came_after_its_deadline_is_never_certain() {
        let late = Span { until_ns: 10, ..span(1, 1) };
        assert_eq!((late.certain_end(), late.reserved_end()), (None, None));
    }
}
