//! A snapshot on its way, piece by piece: the primary's shard makes a piece when the joiner can take one, and the joiner's
//! shard puts the table together in as many passes as it needs.

use alloc::vec::Vec;

use fairlock_protocol::Tick;

use super::link::{Joiner, Progress};
use super::primary::PIECES_UNDER_WAY;
use super::{LinkKey, Replica, Role, Stage};
use crate::message::Unwelcome;

impl Replica {
    /// The snapshot that a follower wanted begins: of the table as it is, with everything appended so far applied. Its
    /// pieces follow with [`Replica::offer_piece`].
    pub fn begin_snapshot(&mut self, now: Tick, key: LinkKey) {
        if !matches!(self.role, Role::Primary) {
            return self.hang_up(now, key);
        }
        self.activate(now, key, self.log.end(), Some(Joiner::default()));
    }

    /// A follower wanted a snapshot, and another one is under way: it asks again soon.
    pub fn postpone_snapshot(&mut self, key: LinkKey) {
        self.refuse(key, Unwelcome::NotYet);
    }

    /// How many more pieces of its snapshot a joiner can take now; `None` when nobody waits for one on this stream any more.
    pub fn wants_pieces(&self, key: LinkKey) -> Option<u32> {
        let joiner = self.joiner(key).filter(|joiner| !joiner.complete)?;
        let queued = u32::try_from(joiner.pieces.len()).unwrap_or(u32::MAX);
        Some(PIECES_UNDER_WAY.saturating_sub(joiner.sent - joiner.acked).saturating_sub(queued))
    }

    /// The next piece of the snapshot that was begun on this stream.
    ///
    /// # Panics
    /// When the joiner's snapshot was over already.
    pub fn offer_piece(&mut self, key: LinkKey, bytes: Vec<u8>, last: bool) {
        let Some(link) = self.link(key) else { return };
        if let Stage::Follows(Progress { joiner: Some(joiner), .. }) = &mut link.stage {
            assert!(!joiner.complete, "nothing comes after the last piece");
            joiner.pieces.push_back(bytes);
            joiner.complete = last;
            self.send_pieces(key);
        }
    }

    /// Whether the pieces that came are wanted still: nothing is here, and the primary that sends them is.
    pub const fn awaits_restored(&self) -> bool {
        !self.has_state && self.leader.is_some()
    }

    fn joiner(&self, key: LinkKey) -> Option<&Joiner> {
        let link = self.links.iter().find(|link| link.key == key)?;
        link.progress()?.joiner.as_ref()
    }
}
