//! How long is long: the times after which silence means something. Two sets, for a quiet network and for any other.

use core::time::Duration;

/// Times of a cell; the same on all its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Pause between two words of a primary that has nothing to say.
    pub heartbeat: Duration,
    /// A member that leaves something unacknowledged this long is evicted.
    pub evict: Duration,
    /// A primary that says nothing this long is suspected.
    pub suspect: Duration,
    /// Least pause between two take-overs because of silence; doubled up to [`Profile::GAP_MAX`].
    pub gap: Duration,
}

impl Profile {
    /// Machines of one rack, with nothing between them that stalls.
    pub const LAN: Profile = Profile {
        heartbeat: Duration::from_millis(5),
        evict: Duration::from_millis(30),
        suspect: Duration::from_millis(50),
        gap: Duration::from_secs(1),
    };
    /// Virtual machines that may stand still for a while.
    pub const CLOUD: Profile = Profile {
        heartbeat: Duration::from_millis(50),
        evict: Duration::from_millis(300),
        suspect: Duration::from_millis(500),
        gap: Duration::from_secs(1),
    };
    /// Longest pause between two take-overs because of silence.
    pub const GAP_MAX: Duration = Duration::from_secs(30);
}
