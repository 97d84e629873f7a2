//! Kinds of requests, as a frame names them.

pub const OPEN: u8 = 0x02;
pub const RESUME: u8 = 0x03;
pub const CLOSE: u8 = 0x04;
pub const KEEPALIVE: u8 = 0x05;
pub const ACQUIRE: u8 = 0x10;
pub const RELEASE: u8 = 0x11;
pub const CONVERT: u8 = 0x12;
pub const CANCEL: u8 = 0x13;
pub const VALIDATE: u8 = 0x14;
pub const CONFIRM: u8 = 0x15;
pub const ACQUIRE_ALL: u8 = 0x16;
pub const LOOK: u8 = 0x17;
pub const REASSERT: u8 = 0x18;
pub const LIST: u8 = 0x20;
pub const SHOW: u8 = 0x21;
pub const SESSIONS: u8 = 0x22;
pub const STATUS: u8 = 0x23;
pub const BREAK: u8 = 0x24;
pub const KILL: u8 = 0x25;
pub const CLUSTER: u8 = 0x26;
pub const SWITCHOVER: u8 = 0x27;
pub const EVICT: u8 = 0x28;
pub const FORCE_NEW: u8 = 0x29;
