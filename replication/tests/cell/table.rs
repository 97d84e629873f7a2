//! The state machine that the cell replicates: for each client its newest operation and what that was answered, and a
//! token that rises with every operation, over epochs, too. A running digest tells two histories apart.

use super::random::mix;

/// Clients of a cell.
pub const CLIENTS: usize = 4;

/// What is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A primary begins: tokens move to its epoch.
    TakeOver(u32),
    /// A client's operation of this number.
    Do(usize, u64),
}

impl Operation {
    pub fn encode(self) -> Vec<u8> {
        let (kind, who, number) = match self {
            Operation::TakeOver(epoch) => (0, 0, u64::from(epoch)),
            Operation::Do(client, number) => (1, u8::try_from(client).unwrap(), number),
        };
        let mut bytes = vec![kind, who];
        bytes.extend(number.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Operation {
        let number = u64::from_le_bytes(bytes[2..10].try_into().unwrap());
        match bytes[0] {
            0 => Operation::TakeOver(u32::try_from(number).unwrap()),
            _ => Operation::Do(usize::from(bytes[1]), number),
        }
    }
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Epoch in which its history began.
    pub origin: u64,
    /// Operations in it.
    pub lsn: u64,
    pub digest: u64,
    /// The newest token.
    pub token: u64,
    /// Of each client the newest number and its answer.
    pub newest: [(u64, u64); CLIENTS],
}

impl Table {
    /// Applies; the answer is the token.
    pub fn apply(&mut self, operation: Operation) -> u64 {
        self.lsn += 1;
        let bytes = operation.encode();
        let word = u64::from_le_bytes(bytes[2..10].try_into().unwrap());
        self.digest =
            mix(self.digest ^ mix(word ^ (u64::from(bytes[0]) << 60) ^ (u64::from(bytes[1]) << 50)));
        match operation {
            Operation::TakeOver(epoch) => {
                if self.lsn == 1 {
                    self.origin = u64::from(epoch);
                }
                if !super::mistakes::token_without_epoch() {
                    self.token = self.token.max(u64::from(epoch) << 32);
                }
            }
            Operation::Do(client, number) => {
                self.token += 1;
                self.newest[client] = (number, self.token);
            }
        }
        self.token
    }

    /// In pieces of a few bytes each.
    pub fn pieces(&self, piece_bytes: usize) -> Vec<Vec<u8>> {
        let mut words = vec![self.origin, self.lsn, self.digest, self.token];
        words.extend(self.newest.iter().flat_map(|(number, answer)| [*number, *answer]));
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.chunks(piece_bytes).map(<[u8]>::to_vec).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Table {
        let words: Vec<u64> =
            bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words.len(), 4 + 2 * CLIENTS, "a snapshot arrives whole");
        let mut newest = [(0, 0); CLIENTS];
        for (client, pair) in words[4..].chunks(2).enumerate() {
            newest[client] = (pair[0], pair[1]);
        }
        Table { origin: words[0], lsn: words[1], digest: words[2], token: words[3], newest }
    }
}
