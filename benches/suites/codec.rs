//! What a message costs: encoding and decoding of the two commonest frames, beside a copy of the same bytes, which no
//! codec can beat.

use criterion::{Criterion, Throughput};
use fairlock_benches::machine;
use fairlock_benches::raw::name;
use fairlock_protocol::reply::Grant;
use fairlock_protocol::request::Acquire;
use fairlock_protocol::wire::{FLAG_KEPT, FLAG_RENEWED};
use fairlock_protocol::{
    Epoch, FencingToken, Frame, GrantId, Mode, OwnerId, Priority, Reply, Request, RequestId, Resource, Wait,
};
use std::hint::black_box;
use std::time::Duration;

fn main() {
    println!("{}", machine::line());
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let number = name(42);
    let acquire = Request::Acquire(Acquire {
        resource: Resource::new(b"", &number).expect("16 bytes are a name"),
        mode: Mode::EX,
        priority: Priority::LOWEST,
        wait: Wait::Millis(1000),
        owner: OwnerId(1),
        reentrant: false,
        notify: false,
        cacheable: false,
        lock_delay_ms: 0,
        max_hold_ms: 0,
        label: b"",
    });
    let granted = Reply::Granted(Grant {
        grant: GrantId::from_raw(1 << 32 | 7).expect("not 0"),
        token: Epoch::new(9).and_then(|epoch| FencingToken::new(epoch, 77)),
        fence: 3,
        mode: Mode::EX,
        waited_us: 0,
        previous_owner_died: false,
        reentered: false,
        proof: None,
    });
    let (mut asked, mut said) = (Vec::new(), Vec::new());
    acquire.encode(RequestId(5), 3, &mut asked);
    granted.encode(RequestId(5), FLAG_RENEWED | FLAG_KEPT, &mut said);
    println!("ACQUIRE with a 16-byte name: {} bytes; GRANTED: {} bytes", asked.len(), said.len());

    message(
        &mut criterion,
        "acquire",
        &asked,
        |out| acquire.encode(RequestId(5), 3, out),
        |frame| matches!(Request::decode(frame), Ok(Request::Acquire(_))),
    );
    let flags = FLAG_RENEWED | FLAG_KEPT;
    message(
        &mut criterion,
        "granted",
        &said,
        |out| granted.encode(RequestId(5), flags, out),
        |frame| matches!(Reply::decode(frame), Ok(Reply::Granted(_))),
    );
    criterion.final_summary();
}

/// Copy, encode and decode of one frame.
fn message(
    criterion: &mut Criterion,
    what: &str,
    bytes: &[u8],
    mut encode: impl FnMut(&mut Vec<u8>),
    decode: impl Fn(&Frame<'_>) -> bool,
) {
    let mut group = criterion.benchmark_group(what);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut out = Vec::with_capacity(bytes.len());
    group.bench_function("copy (limit)", |bench| {
        bench.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(bytes));
            black_box(out.as_slice());
        });
    });
    group.bench_function("encode", |bench| {
        bench.iter(|| {
            out.clear();
            encode(&mut out);
            black_box(out.as_slice());
        });
    });
    group.bench_function("decode", |bench| {
        bench.iter(|| {
            let split = Frame::split(black_box(bytes));
            let whole = split.expect("the frame is well-formed").expect("the frame is whole");
            assert!(decode(black_box(&whole.0)), "the frame is what it was made as");
        });
    });
    group.finish();
}
