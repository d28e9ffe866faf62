#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // Panics of the schema's parser are caught and refuse the schema; any other one is a find.
        std::panic::set_hook(Box::new(|panic| {
            if panic.location().is_none_or(|at| !at.file().contains("protox")) {
                eprintln!("{panic}");
                std::process::abort();
            }
        }));
    },
    |bytes: &[u8]| firn_fuzz::protobuf_value(bytes)
);
