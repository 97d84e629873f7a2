//! What a pass does for streams with other nodes of the cell: takes them in, and sends what is to be said on them.

use fairlock_protocol::Tick;
use fairlock_replication::replica::LinkKey;

use super::{ShardThread, place};
use crate::driver::{Flush, LinkId};
use crate::lanes::PeerStream;

impl ShardThread {
    /// Takes a stream with another node in.
    pub(super) fn adopt_peer(&mut self, now: Tick, stream: PeerStream) {
        match self.driver.attach(stream.socket) {
            Ok(link) => {
                self.driver.read_on(link);
                self.streams_begun += 1;
                let key = LinkKey(self.streams_begun);
                *place(&mut self.peers, link.slot()) = Some((link, key));
                self.shard.peer_linked(now, key, stream.peer, stream.dialed);
            }
            Err(error) => tracing::warn!(%error, "a stream with another node could not be taken"),
        }
    }

    pub(super) fn stream_of(&self, link: LinkId) -> Option<LinkKey> {
        let (known, key) = (*self.peers.get(link.slot() as usize)?)?;
        (known == link).then_some(key)
    }

    /// Sends what is to be said to other nodes: before anything else, because everybody waits for their answers.
    pub(super) fn write_to_peers(&mut self) {
        let (peers, driver) = (&self.peers, &mut self.driver);
        let link_of =
            |key: LinkKey| peers.iter().flatten().find(|(_, known)| *known == key).map(|(link, _)| *link);
        let ended = self.shard.take_peer_out(|key, out| {
            if let Some(link) = link_of(key) {
                driver.send(link, out);
            }
        });
        for key in ended {
            let Some(at) = self.peers.iter().position(|peer| peer.is_some_and(|(_, known)| known == key))
            else {
                continue;
            };
            if let Some((link, _)) = self.peers[at].take() {
                self.driver.close(link, Flush::Queued);
            }
        }
    }
}
