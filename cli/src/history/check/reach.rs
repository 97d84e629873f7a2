//! How far the holds seen so far reach, mode by mode.
//!
//! Two are kept of each mode, of different holders: whoever enters his own grant again must not hide another one behind
//! himself.

use crate::history::span::Span;
use fairlock_protocol::Mode;

/// A hold and the figure it is compared by.
pub(super) type Far<'a> = Option<(u64, &'a Span)>;

/// The farthest holds.
#[derive(Default)]
pub(super) struct Reach<'a> {
    of_mode: [[Far<'a>; 2]; Mode::ALL.len()],
}

impl<'a> Reach<'a> {
    /// Takes a hold in.
    pub(super) fn add(&mut self, far: u64, span: &'a Span) {
        let [best, second] = &mut self.of_mode[usize::from(span.mode.wire())];
        let farther = |than: &Far<'_>| than.is_none_or(|(other, _)| far > other);
        if farther(best) {
            if best.is_some_and(|(_, held)| !held.is_of_the_holder_of(span)) {
                *second = *best;
            }
            *best = Some((far, span));
        } else if farther(second) && best.is_some_and(|(_, held)| !held.is_of_the_holder_of(span)) {
            *second = Some((far, span));
        }
    }

    /// The farthest that cannot stand beside this one and is somebody else's.
    pub(super) fn against(&self, span: &Span) -> Far<'a> {
        let others = Mode::ALL.into_iter().filter(|&mode| !mode.compatible(span.mode));
        let candidates = others.flat_map(|mode| self.of_mode[usize::from(mode.wire())].iter().flatten());
        candidates.filter(|(_, held)| !held.is_of_the_holder_of(span)).max_by_key(|(far, _)| *far).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::span::tests::span;

    #[test]
    fn ones_own_grant_does_not_hide_anothers() {
        let (mine, again, other) = (span(1, 1), span(1, 1), span(2, 2));
        for order in [[&mine, &again, &other], [&other, &mine, &again], [&mine, &other, &again]] {
            let mut reach = Reach::default();
            for held in order {
                reach.add(if held.client == 2 { 5 } else { 9 }, held);
            }
            assert_eq!(reach.against(&mine).map(|(far, held)| (far, held.client)), Some((5, 2)));
            assert_eq!(reach.against(&other).map(|(far, held)| (far, held.client)), Some((9, 1)));
        }
    }

    #[test]
    fn compatible_modes_do_not_stand_against_each_other() {
        let read = |client| Span { mode: Mode::PR, ..span(client, client.into()) };
        let (one, two) = (read(1), read(2));
        let mut reach = Reach::default();
        reach.add(7, &one);
        assert!(reach.against(&two).is_none());
        assert!(reach.against(&span(3, 3)).is_some());
    }
}
