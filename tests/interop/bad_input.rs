//! Records that cannot be read, and servers that are not there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::kafka::Record;
use crate::process::{FirnProcess, catch_up, eventually, until_caught_up};
use crate::proxy::{Fate, Proxy};
use crate::rows::assert_same_rows;
use crate::scenario::{Scenario, VALUE};
use crate::stack::Catalog;
use crate::wanted;

const LIMIT: Duration = Duration::from_secs(100);
const SKIP: &str = "    on_bad_record: skip\n";

/// What is done to the bytes of a good value.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: [(&str, Damage); 9] = [
    ("wrong magic byte", |value| value[0] = 7),
    ("unknown schema id", |value| value[1..5].copy_from_slice(&0x7fff_fff0_u32.to_be_bytes())),
    ("truncated body", |value| value.truncate(value.len() - 3)),
    ("header alone", |value| value.truncate(5)),
    ("less than a header", |value| value.truncate(3)),
    ("empty value", Vec::clear),
    ("garbage behind the body", |value| value.extend_from_slice(b"xyz")),
    ("invalid utf-8", |value| {
        let at = (5..value.len()).find(|&i| value[i] == b'S').unwrap();
        value[at] = 0xff;
    }),
    ("enum index out of range", |value| *value.last_mut().unwrap() = 18),
];

fn damaged(scenario: &mut Scenario, damage: Damage, partition: i32) -> Record {
    let mut record = scenario.stray(1, partition);
    damage(record.value.as_mut().unwrap());
    record
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn bad_records_are_skipped_and_their_neighbours_are_not() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("skipped", Catalog::Sqlite, 2);
    let config = scenario.config(3, SKIP);
    let mut records = Vec::new();
    for (_, damage) in DAMAGES {
        records.extend(scenario.events(20, 100));
        records.push(damaged(&mut scenario, damage, 0));
        records.push(damaged(&mut scenario, damage, 1));
    }
    // an oversized length inside of the body
    let mut long = scenario.stray(1, 0);
    if let Some(value) = &mut long.value {
        let at = (5..value.len()).find(|&i| value[i] == b'S').unwrap() - 1;
        value.splice(at..=at, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
    }
    records.push(long);
    records.extend(scenario.events(20, 100));
    scenario.send(&records);
    catch_up(&config);
    assert_same_rows(&scenario.trino(), &scenario.expected());
    assert_same_rows(&scenario.pyiceberg(), &scenario.expected());
}

#[test]
fn a_bad_record_stops_the_run_with_its_place_and_what_is_before_it_is_in() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("stopped", Catalog::Sqlite, 1);
    let (stop, skip) = (scenario.config(3, ""), scenario.dir.path().join("skip.yaml"));
    std::fs::write(&skip, std::fs::read_to_string(&stop).unwrap().replace("state_dir", &format!("{SKIP}state_dir")))
        .unwrap();
    let mut offset = 0;
    for (name, damage) in DAMAGES {
        let before = scenario.events(30, 100);
        scenario.send(&before);
        let in_before = scenario.expected();
        let mut rest = vec![damaged(&mut scenario, damage, 0)];
        rest.extend(scenario.events(10, 100));
        scenario.send(&rest);
        offset += 30;
        let (code, stderr) = until_caught_up(&stop, LIMIT);
        assert_eq!(code, 4, "{name}: {stderr}");
        assert!(stderr.contains(&scenario.topic) && stderr.contains(&offset.to_string()), "{name}: {stderr}");
        let said: Vec<_> = stderr.lines().filter(|line| line.contains(&offset.to_string())).collect();
        println!("{name}: {}", said.last().unwrap_or(&""));
        assert_same_rows(&scenario.trino(), &in_before);
        // it does not get past it by itself
        assert_eq!(until_caught_up(&stop, LIMIT).0, 4, "{name}");
        catch_up(&skip);
        offset += 11;
        assert_same_rows(&scenario.trino(), &scenario.expected());
    }
}

/// A proxy that can be switched off, and its switch.
fn switched(upstream: &str) -> (Proxy, Arc<AtomicBool>) {
    let off = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&off);
    let rule = move |_: &_| if switch.load(Ordering::Relaxed) { Fate::Drop } else { Fate::Pass };
    (Proxy::start(upstream, Box::new(rule)), off)
}

/// Commits, then an outage begins, then it ends and the rows are in.
fn waits_out(
    scenario: &mut Scenario,
    config: &Path,
    begin: impl FnOnce(&mut Scenario, &mut FirnProcess),
    end: impl FnOnce(),
) {
    scenario.produce(200, 100);
    let mut process = FirnProcess::run(config, &[]);
    process.wait_for_stderr("commit written", LIMIT);
    begin(scenario, &mut process);
    std::thread::sleep(Duration::from_secs(4));
    assert!(process.is_running(), "{}", process.stderr());
    end();
    let expected = scenario.expected();
    eventually("the rows are in after the outage", LIMIT, || {
        assert!(process.is_running(), "{}", process.stderr());
        crate::rows::difference(&scenario.trino(), &expected).is_none()
    });
    process.terminate();
    assert_eq!(process.wait(Duration::from_secs(35)).code(), Some(0), "{}", process.stderr());
}

#[test]
fn a_registry_outage_is_waited_out_and_costs_no_record() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("registry", Catalog::Sqlite, 2);
    let (proxy, off) = switched(&scenario.stack.registry.url);
    let config = scenario.config(3, SKIP);
    replace(&config, &scenario.stack.registry.url, &proxy.url);
    let begin = |scenario: &mut Scenario, _: &mut FirnProcess| {
        off.store(true, Ordering::Relaxed);
        // an id that has to be asked for
        scenario.evolve(&VALUE.replace("]}}]}", r#"]}},{"name":"note","type":["null","string"],"default":null}]}"#));
        scenario.produce(200, 100);
    };
    waits_out(&mut scenario, &config, begin, || off.store(false, Ordering::Relaxed));
}

#[test]
fn a_catalog_outage_is_waited_out() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("catalogout", Catalog::Rest, 2);
    let (proxy, off) = switched(&scenario.stack.rest);
    let config = scenario.config(3, "");
    replace(&config, &format!("uri: \"{}\"", scenario.stack.rest), &format!("uri: \"{}\"", proxy.url));
    let begin = |scenario: &mut Scenario, _: &mut FirnProcess| {
        off.store(true, Ordering::Relaxed);
        scenario.produce(200, 100);
    };
    waits_out(&mut scenario, &config, begin, || off.store(false, Ordering::Relaxed));
}

/// A small file system of its own, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> SmallDisk {
        std::fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&at).status().unwrap();
        assert!(mounted.success(), "a file system can be mounted only with that right, as root has");
        SmallDisk(at)
    }

    /// Takes what is free.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_waited_out() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("fulldisk", Catalog::Sqlite, 2);
    let disk = SmallDisk::mount(scenario.dir.path().join("small"));
    let config = scenario.config(3, "");
    let warehouse = scenario.stack.warehouse_of(Catalog::Sqlite);
    replace(
        &config,
        &format!("warehouse: \"{}\"", warehouse.display()),
        &format!("warehouse: \"{}\"", disk.0.display()),
    );
    let begin = |scenario: &mut Scenario, process: &mut FirnProcess| {
        disk.fill();
        scenario.produce(2_000, 100);
        process.wait_for_stderr("no space is left", LIMIT);
    };
    waits_out(&mut scenario, &config, begin, || disk.free());
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    if !wanted() {
        return;
    }
    let scenario = Scenario::new("present", Catalog::Sqlite, 1);
    let config = scenario.config(3, "");
    replace(&config, &format!("topics: [{}]", scenario.topic), "topics: [no_such_topic_here]");
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert!(matches!(code, 2 | 3), "exit code {code}: {stderr}");
    assert!(stderr.contains("no_such_topic_here"), "{stderr}");
}

#[test]
fn a_catalog_a_registry_or_a_broker_that_is_down_at_start_ends_with_its_address() {
    if !wanted() {
        return;
    }
    let mut scenario = Scenario::new("down", Catalog::Rest, 1);
    scenario.produce(10, 10);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (stack, nobody) = (scenario.stack, format!("http://{free}"));
    let broker = scenario.config_named("broker.yaml", &free, "", 3, "");
    let registry = scenario.config_named("registry.yaml", &stack.kafka.plaintext, "", 3, "");
    replace(&registry, &stack.registry.url, &nobody);
    let catalog = scenario.config(3, "");
    replace(&catalog, &format!("uri: \"{}\"", stack.rest), &format!("uri: \"{nobody}\""));
    // Side by side: each is waited for for a minute.
    std::thread::scope(|scope| {
        let runs = [broker, registry, catalog].map(|config| scope.spawn(move || until_caught_up(&config, LIMIT)));
        for run in runs {
            let (code, stderr) = run.join().expect("it ends");
            assert_eq!(code, 3, "{stderr}");
            assert!(stderr.contains(&free), "{stderr}");
        }
    });
}
