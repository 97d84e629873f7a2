//! Every thing that can be in the way of a socket, and what is left behind.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::*;
use crate::control::test_room::TempDir;

#[test]
fn a_socket_has_its_mode_and_a_made_directory_is_closed() {
    let room = TempDir::new();
    let path = room.path().join("run/fairlock.sock");
    let door = bind_unix(&path, 0o606, Some("0")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o606);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o7777 & !0o750, 0);
    assert_eq!(door.path(), path);
    UnixStream::connect(&path).unwrap();
    drop(door);
    assert!(!path.exists(), "the file goes with its socket");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    let room = TempDir::new();
    let path = room.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "nobody answers there any more");
    let door = bind_unix(&path, 0o660, None).unwrap();
    let error = bind_unix(&path, 0o660, None).unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error:?}");
    assert!(error.to_string().contains("another server answers"));
    assert_eq!(error.exit_code(), 69);
    drop(door);
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(bind_unix(&path, 0o660, None), Err(BindError::Live { .. })), "somebody else's");
}

#[test]
fn what_is_not_a_socket_is_refused_and_left_alone() {
    let room = TempDir::new();
    let (file, directory, link) = (room.path().join("f"), room.path().join("d"), room.path().join("l"));
    fs::write(&file, "precious").unwrap();
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::symlink(room.path().join("nowhere"), &link).unwrap();
    for path in [&file, &directory, &link] {
        let error = bind_unix(path, 0o660, None).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error:?}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let below = bind_unix(&file.join("s"), 0o660, None).unwrap_err();
    assert!(below.to_string().contains("directory of the socket"), "{below}");
}

#[test]
fn places_that_cannot_be_are_refused_with_their_reason() {
    let long = Path::new("/tmp").join("x".repeat(120));
    assert!(matches!(bind_unix(&long, 0o660, None), Err(BindError::TooLong { .. })));
    let error = bind_unix(Path::new("/proc/sys/fairlock.sock"), 0o660, None).unwrap_err();
    assert!(matches!(error, BindError::NoPermission { .. } | BindError::Other { .. }), "{error:?}");
    let room = TempDir::new();
    let error = bind_unix(&room.path().join("s"), 0o660, Some("no such group")).unwrap_err();
    assert!(matches!(error, BindError::NoGroup { .. }) && error.exit_code() == 78);
    assert!(!room.path().join("s").exists());
}

#[test]
fn a_file_somebody_else_put_there_is_not_removed() {
    let room = TempDir::new();
    let path = room.path().join("s");
    let door = bind_unix(&path, 0o660, None).unwrap();
    fs::rename(&path, room.path().join("aside")).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(door);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn groups_are_found_by_name() {
    let listed = "root:x:0:\nlocks:x:1234:ada,bob\nbroken\n";
    assert_eq!(gid_in(listed, "locks"), Some(Gid::from_raw(1234)));
    assert_eq!(gid_in(listed, "lock"), None);
    assert_eq!(gid_in(listed, "broken"), None);
    assert!(gid_of("4294967295").is_err());
}

#[test]
fn a_taken_port_is_named() {
    let first = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = bind_tcp(address).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }) && error.to_string().contains(&address.to_string()));
    assert_eq!(error.exit_code(), 69);
    drop(first);
    bind_tcp(address).unwrap();
}
