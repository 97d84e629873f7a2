//! Which files hold a secret, that it stays one, and that a proof is what others would compute.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::control::test_room::TempDir;

fn file(room: &TempDir, bytes: &[u8], mode: u32) -> PathBuf {
    let path = room.path().join("secret");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn refusal(path: &Path) -> String {
    let error = Secret::read(path).unwrap_err();
    assert_eq!(error.exit_code(), 78);
    error.to_string()
}

#[test]
fn a_secret_is_what_stands_in_the_file_without_blanks_around_it() {
    let room = TempDir::new();
    for mode in [0o600, 0o440] {
        let secret = Secret::read(&file(&room, b"  sixteen bytes ok\r\n\n", mode)).unwrap();
        assert_eq!(secret.0, b"sixteen bytes ok");
        std::fs::remove_file(room.path().join("secret")).unwrap();
    }
}

#[test]
fn a_file_that_cannot_hold_a_secret_is_named_with_what_to_do() {
    let room = TempDir::new();
    let words = |bytes: &[u8], mode, words: &str| {
        let path = file(&room, bytes, mode);
        let message = refusal(&path);
        assert!(message.contains(path.to_str().unwrap()) && message.contains(words), "{message}");
    };
    words(b"  fifteen bytes !  ", 0o600, "fewer than 16 bytes");
    words(b"", 0o600, "fewer than 16 bytes");
    words(&[b'x'; FILE_BYTES_MAX + 1], 0o600, "longer than 4096");
    words(b"a good secret, but open", 0o644, "chmod it to 0600");
    words(b"a good secret, but open", 0o602, "chmod it to 0600");
    assert!(refusal(room.path()).contains("is not a file"));
    assert!(refusal(&room.path().join("none")).contains("cannot read"));
}

#[test]
fn a_pipe_does_not_hold_the_start_up() {
    let room = TempDir::new();
    let path = room.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(refusal(&path).contains("is not a file"));
}

#[test]
fn a_secret_shows_itself_nowhere() {
    let secret = Secret::new(b"correct horse battery staple").unwrap();
    assert_eq!(format!("{secret:?} {:#?}", Some(secret.clone())).matches("hidden").count(), 2);
    assert!(!format!("{secret:?}").contains("horse"));
}

#[test]
fn a_proof_is_the_hmac_of_role_and_words() {
    let secret = Secret::new(b"a secret of sixteen and more").unwrap();
    let proof = secret.prove(Role::Caller, b"said");
    // Python: hmac.new(secret, b"fairlock peer 1 caller  said", "sha256").hexdigest()
    let hex = "5235bde9c136255fa57f4096d841ee21d50989892b7c5cd9768b8c2b64d8c839";
    let expected: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(proof, *expected);
    assert!(secret.is_proven(Role::Caller, b"said", &proof));
    assert!(!secret.is_proven(Role::Answerer, b"said", &proof), "the role is in it");
    assert!(!secret.is_proven(Role::Caller, b"sad", &proof));
    assert!(!secret.is_proven(Role::Caller, b"said", &proof[..31]));
    assert!(!secret.is_proven(Role::Caller, b"said", &[]));
}
