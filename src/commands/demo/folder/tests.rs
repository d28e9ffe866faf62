use super::*;

fn edited(dir: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(dir.join(FILE)).unwrap();
    assert!(text.contains(from), "{from}");
    fs::write(dir.join(FILE), text.replace(from, to)).unwrap();
}

fn refusal(dir: &Path) -> String {
    let error = Folder::open(dir).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn a_new_folder_gets_settings_that_stay_as_they_are() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a").join("b");
    let first = Folder::open(&dir).unwrap();
    assert!(!first.edited);
    assert_eq!(first.pipeline().unwrap().tables[0].format_version, 3);
    assert_eq!(first.settings.notes, Vec::<String>::new());
    assert!(first.settings.state_dir.starts_with(&dir));
    drop(first);
    edited(&dir, "interval: 1s ", "interval: 3s ");
    let again = Folder::open(&dir).unwrap();
    assert!(again.edited);
    assert_eq!(again.pipeline().unwrap().commit.interval, std::time::Duration::from_secs(3));
    assert!(fs::read_to_string(&again.config).unwrap().contains("interval: 3s "));
}

#[test]
fn other_pipelines_of_the_file_are_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    drop(Folder::open(temp.path()).unwrap());
    let mine = "pipelines:\n  mine: {topics: [t], tables: [{catalog: lake, name: a.b}]}\n";
    edited(temp.path(), "pipelines:\n", mine);
    let folder = Folder::open(temp.path()).unwrap();
    assert_eq!(folder.settings.pipelines.keys().collect::<Vec<_>>(), [PIPELINE]);
}

#[test]
fn a_folder_of_other_things_is_refused_and_left_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("thesis.tex"), "").unwrap();
    assert!(refusal(temp.path()).contains("holds other things (thesis.tex)"));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn an_unfinished_settings_file_does_not_stand_in_the_way() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(UNFINISHED), "kaf").unwrap();
    assert!(!Folder::open(temp.path()).unwrap().edited);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn settings_that_are_no_demos_any_more_are_refused() {
    let cases = [
        ("brokers: embedded", "brokers: 'kafka:9092'", "kafka.brokers is not `embedded`"),
        ("url: embedded", "url: 'http://registry'", "schema_registry.url is not `embedded`"),
        ("\n  market:", "\n  other:", "it has no pipeline `market`"),
        ("topics: [market]", "topics: [trades]", "pipelines.market.topics is not [market]"),
        ("mode: upsert", "mode: upset", "firn.yaml:"),
    ];
    for (from, to, reason) in cases {
        let temp = tempfile::tempdir().unwrap();
        drop(Folder::open(temp.path()).unwrap());
        edited(temp.path(), from, to);
        let text = refusal(temp.path());
        assert!(text.contains(reason), "{to}: {text}");
    }
}

#[test]
fn two_demos_cannot_run_in_one_folder_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let first = Folder::open(temp.path()).unwrap();
    assert!(refusal(temp.path()).contains("another `firn demo` is running"));
    drop(first);
    Folder::open(temp.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("file"), "").unwrap();
    assert!(refusal(&temp.path().join("file").join("demo")).contains("cannot create the folder"));
    assert!(refusal(&temp.path().join("file")).contains("file"));
}
