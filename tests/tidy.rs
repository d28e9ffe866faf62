//! What the structure promises, checked on the sources: boundaries, sizes, documentation, and that every invariant has a
//! test. A rule that is only written gets broken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// Lines of a source file before its tests.
const LINES_MAX: usize = 500;

/// Files that are longer, with how long they may be and why. None may grow.
const LONGER: [(&str, usize, &str); 0] = [];

/// Rooms that own one outside system each.
const EDGES: [&str; 7] = ["avro", "embedded", "files", "query", "source", "table", "telemetry"];

/// A source file of the repository.
struct Source {
    /// Its path from the root, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Whether all of it is test code.
    fn is_test(&self) -> bool {
        let in_src = self.path.strip_prefix("src/");
        in_src.is_none_or(|p| p.ends_with("tests.rs") || p.ends_with("testing.rs") || p.contains("/tests/"))
    }

    /// The lines before its tests; none of a test file.
    fn production(&self) -> Vec<&str> {
        if self.is_test() {
            return Vec::new();
        }
        self.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect()
    }

    /// The production lines without comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.production().into_iter().enumerate();
        lines.map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
    }

    /// The part that is test code.
    fn tests(&self) -> String {
        self.text.lines().skip(self.production().len()).collect::<Vec<_>>().join("\n")
    }

    /// The room in `src` that it belongs to: a folder or a file.
    fn room(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or_default();
        path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder`, in order.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The Rust sources below these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut paths);
    }
    let rust = paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let sources: Vec<Source> = rust
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/"),
        })
        .collect();
    assert!(!sources.is_empty(), "no sources in {folders:?}");
    sources
}

/// Where a pattern occurs in production code of the sources that `of` picks.
fn code_that_names(pattern: &str, of: impl Fn(&Source) -> bool) -> Vec<String> {
    let pattern = Regex::new(pattern).unwrap();
    let mut found = Vec::new();
    for source in sources(&["src"]).iter().filter(|s| of(s)) {
        let lines = source.code().filter(|(_, line)| pattern.is_match(line));
        found.extend(lines.map(|(n, line)| format!("{}:{n}: {}", source.path, line.trim())));
    }
    found
}

fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

/// INV-19: nothing in the core does I/O, reads a clock or random numbers.
#[test]
fn the_core_names_no_runtime_no_clock_no_randomness_no_io_and_no_log() {
    let library = r"\b(tokio|futures|rand|tracing|reqwest|sqlx|rdkafka|iceberg|object_store|parquet|datafusion)(::|!)";
    let asynchronous = r"\basync\b|\.await\b";
    let std = r"\bstd::(fs|net|env|time|thread|process)\b|\bstd::\{[^}]*\b(fs|net|env|time|thread|process)\b";
    let clock = r"\b(Instant|SystemTime|RandomState)\b|\b(Utc|Local)::now\b|\bnew_v[1-7]\b|\bnow_v[1-7]\b";
    let print = r"\be?print(ln)?!|\bdbg!";
    for pattern in [library, asynchronous, std, clock, print] {
        none(&code_that_names(pattern, |s| s.room() == "core"), "the core is pure");
    }
    // The hash maps of the standard library seed themselves: in the core a hasher is named, or the map is ordered.
    let seeded = r"Hash(Map|Set)(::<[^>]*>)?::(new|with_capacity)\(";
    none(&code_that_names(seeded, |s| s.room() == "core"), "a self-seeding hash map in the core");
}

#[test]
fn arrows_point_from_main_to_service_to_edges_to_core() {
    let rooms = "avro|commands|embedded|files|query|service|settings|source|table|telemetry";
    let up = |rooms: &str| format!(r"\b(crate|firn)::({rooms})\b|\bcrate::\{{[^}}]*\b({rooms})::");
    none(&code_that_names(&up(rooms), |s| s.room() == "core"), "the core names nothing outside");
    let frame = up("service|commands");
    none(&code_that_names(&frame, |s| EDGES.contains(&s.room())), "an edge names the frame");
    none(&code_that_names(&frame, |s| s.room() == "settings"), "settings name the frame");
    none(&code_that_names(&up("commands"), |s| s.room() == "service"), "the service names the commands");
    none(&code_that_names(r"\banyhow\b", |s| s.room() != "main"), "only main uses anyhow");
    let rooms: BTreeSet<String> = sources(&["src"]).iter().map(|s| s.room().to_owned()).collect();
    for edge in EDGES {
        assert!(rooms.contains(edge), "there is no edge {edge} any more: take it off the list");
    }
}

#[test]
fn files_stay_short_and_have_names_that_say_something() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        let lines = if source.path.starts_with("src/") {
            source.production().len()
        } else {
            source.text.lines().count().min(LINES_MAX)
        };
        let listed = LONGER.iter().find(|(path, ..)| *path == source.path);
        if lines > listed.map_or(LINES_MAX, |(_, most, _)| *most) {
            wrong.push(format!("{}: {lines} lines before its tests", source.path));
        }
        if listed.is_some() && lines <= LINES_MAX {
            wrong.push(format!("{}: short again: take it off the list", source.path));
        }
        let name = source.path.rsplit('/').next().unwrap_or_default();
        if ["utils.rs", "util.rs", "common.rs", "helpers.rs", "misc.rs"].contains(&name) {
            wrong.push(format!("{}: a name that says nothing", source.path));
        }
    }
    none(&wrong, "sizes and names of files");
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let unfinished =
        Regex::new(concat!("\\b(to", "do|unimple", "mented)!|#\\[ign", "ore|\\bFIX", "ME\\b|\\bXX", "X\\b")).unwrap();
    let named = Regex::new(r"^\s*(async )?fn test_").unwrap();
    let mut found = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        for (n, line) in source.text.lines().enumerate() {
            if unfinished.is_match(line) || named.is_match(line) {
                found.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    none(&found, "unfinished, ignored, or a test whose name begins with test_");
}

#[test]
fn every_public_item_is_documented() {
    let item =
        Regex::new(r"^\s*pub (async |unsafe |const )*(fn|struct|enum|trait|type|const|static|mod) (\w+)").unwrap();
    let mut bare = Vec::new();
    for source in sources(&["src"]) {
        let lines = source.production();
        for (n, line) in lines.iter().enumerate() {
            let Some(found) = item.captures(line) else { continue };
            let module = &found[2] == "mod" && line.trim_end().ends_with(';');
            let documented = if module { has_page(&source, &found[3]) } else { is_documented(&lines, n) };
            if !documented {
                bare.push(format!("{}:{}: {}", source.path, n + 1, line.trim()));
            }
        }
    }
    none(&bare, "public and not documented");
}

/// Whether a documentation comment stands before the item on line `n`, attributes skipped.
fn is_documented(lines: &[&str], n: usize) -> bool {
    let mut above = lines[..n].iter().rev().map(|line| line.trim());
    while let Some(line) = above.next() {
        if line.starts_with("///") {
            return true;
        }
        if line.ends_with(']') && !line.starts_with("#[") {
            // The end of an attribute of several lines.
            above.find(|line| line.starts_with("#["));
        } else if !line.starts_with("#[") {
            return false;
        }
    }
    false
}

/// Whether the file of a module begins with its documentation.
fn has_page(parent: &Source, module: &str) -> bool {
    let path = root().join(&parent.path);
    let folder = match path.file_stem().and_then(|s| s.to_str()) {
        Some("mod" | "lib" | "main") => path.parent().unwrap().to_path_buf(),
        _ => path.with_extension(""),
    };
    let files = [folder.join(format!("{module}.rs")), folder.join(module).join("mod.rs")];
    files.iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| text.starts_with("//!")))
}

/// The invariants named in a text.
fn invariants(text: &str) -> BTreeSet<u32> {
    let name = Regex::new(r"\bINV-([0-9]+)\b").unwrap();
    name.captures_iter(text).map(|found| found[1].parse().unwrap()).collect()
}

#[test]
fn every_invariant_has_a_test_that_names_it() {
    let Ok(page) = std::fs::read_to_string(root().join("docs/architecture.md")) else { return };
    let stated = invariants(&page);
    assert!(!stated.is_empty(), "docs/architecture.md states no invariant");
    let all: Vec<Source> = sources(&["src", "tests"]);
    let tested = all.iter().flat_map(|source| invariants(&source.tests())).collect::<BTreeSet<u32>>();
    let cited = all.iter().flat_map(|source| invariants(&source.text)).collect::<BTreeSet<u32>>();
    let untested: Vec<&u32> = stated.difference(&tested).collect();
    assert!(untested.is_empty(), "invariants that no test names: INV-{untested:?}");
    let unknown: Vec<&u32> = cited.difference(&stated).collect();
    assert!(unknown.is_empty(), "named, but not in docs/architecture.md: INV-{unknown:?}");
}

#[test]
fn the_package_builds_without_cmake_and_ships_no_planted_fault() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let kafka: Vec<&str> = manifest.lines().filter(|line| line.starts_with("rdkafka")).collect();
    assert!(!kafka.is_empty(), "rdkafka is not a dependency any more");
    assert!(
        kafka.iter().all(|line| !line.contains("cmake")),
        "librdkafka is to be built by its own configure: {kafka:?}"
    );
    let package = manifest.split("[dev-dependencies]").next().unwrap();
    let default = package.lines().find(|line| line.starts_with("default ") || line.starts_with("default="));
    assert!(default.is_none_or(|line| !line.contains("mutants")), "planted faults are a test's business: {default:?}");
    assert_eq!(package.matches("\"mutants\"").count(), 0, "only the tests turn the planted faults on");
}

#[cfg(unix)]
#[test]
fn the_check_of_everything_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let script = root().join(".ci/run");
    let mode = std::fs::metadata(&script).expect(".ci/run is there").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, ".ci/run is not executable");
    assert!(std::fs::read_to_string(script).unwrap().starts_with("#!"), ".ci/run does not say what runs it");
}

/// Every file that belongs to the repository: what git tracks, or all there is where there is no git.
fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    if let Ok(listed) = listed
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let names = String::from_utf8(listed.stdout).unwrap();
        return names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect();
    }
    let mut found = Vec::new();
    for folder in [".ci", "benches", "compose", "docs", "schemas", "src", "tests"] {
        walk(&root().join(folder), &mut found);
    }
    found.extend(["Cargo.toml", "README.md"].map(|name| root().join(name)));
    found
}

#[test]
fn no_path_of_one_machine_is_in_a_file() {
    let machine = Regex::new(concat!("/ro", "ot/|/tmp/w", "t\\b|/wo", "rk/|/ho", "me/[a-z]")).unwrap();
    let mut found = Vec::new();
    for path in tracked() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (n, line) in text.lines().enumerate().filter(|(_, line)| machine.is_match(line)) {
            found.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
        }
    }
    none(&found, "a path that exists on one machine only");
}
