use super::super::Store;
use super::*;

fn properties(pairs: &[(&str, &str)]) -> Properties {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn open(location: &str, pairs: &[(&str, &str)]) -> Result<String> {
    let store = Store::with_properties(&properties(pairs));
    store.object(location).map(|(store, _)| store.to_string())
}

#[test]
fn each_scheme_opens_its_store() {
    let key = ("adls.account-key", "c2VjcmV0");
    for (location, pairs, wanted) in [
        ("s3://b/x", vec![("s3.access-key-id", "k"), ("s3.secret-access-key", "s")], "AmazonS3(b)"),
        ("s3a://b/x", vec![("s3.endpoint", "http://127.0.0.1:1")], "AmazonS3(b)"),
        ("gs://b/x", vec![("gcs.oauth2.token", "t")], "GoogleCloudStorage(b)"),
        ("abfss://c@acct.dfs.core.windows.net/x", vec![key], "MicrosoftAzure { account: acct, container: c }"),
    ] {
        assert_eq!(open(location, &pairs).unwrap(), wanted, "{location}");
    }
}

#[test]
fn properties_that_cannot_work_are_named() {
    for (location, pairs, wanted) in [
        ("s3://b/x", vec![("s3.access-key-id", "k")], "belong together"),
        ("s3://b/x", vec![("s3.remote-signing-enabled", "true")], "sign each request itself"),
        ("abfss://c/x", vec![], "CONTAINER@ACCOUNT"),
    ] {
        let error = open(location, &pairs).unwrap_err();
        assert!(matches!(&error, Error::Config(m) if m.contains(wanted) && m.contains("://")), "{error}");
    }
    let error =
        check_store_properties("lake", &properties(&[("token", "x"), ("s3.acess-key-id", "hunter2")])).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("s3.acess-key-id") && text.contains("s3.access-key-id") && !text.contains("hunter2"),
        "{text}"
    );
    let fine = properties(&[
        ("s3.region", "r"),
        ("adls.sas-token.acct", "x"),
        ("adls.connection-string.acct", "http://h"),
        ("credential", "c"),
        ("client.region", "r"),
    ]);
    check_store_properties("lake", &fine).unwrap();
}

#[test]
fn an_azure_connection_string_is_an_address_or_holds_one() {
    let (account, host) = ("acct", "acct.dfs.core.windows.net");
    let whole = "DefaultEndpointsProtocol=http;AccountName=acct;AccountKey=c2VjcmV0PQ==;BlobEndpoint=http://h:1/acct/;";
    for (name, value, address) in [
        ("adls.connection-string", "http://h:1/acct", Some("http://h:1/acct")),
        ("adls.connection-string.acct", "https://h/acct/", Some("https://h/acct")),
        ("adls.connection-string.acct.dfs.core.windows.net", whole, Some("http://h:1/acct")),
        ("adls.connection-string.other", whole, None),
        ("adls.connection-string", "AccountName=acct;AccountKey=c2VjcmV0PQ==", None),
    ] {
        assert_eq!(azure_address(&properties(&[(name, value)]), account, host).as_deref(), address, "{name}");
    }
    let keyed = azure_credential(&properties(&[("adls.connection-string", whole)]), account, host);
    assert!(matches!(keyed, Some(AzureCredential::AccessKey(_))), "the key of the string is used");
}

#[test]
fn stores_print_no_secrets() {
    let store = Store::with_properties(&properties(&[
        ("s3.access-key-id", "hunter1"),
        ("s3.secret-access-key", "hunter2"),
        ("s3.session-token", "hunter3"),
    ]));
    store.object("s3://b/x").unwrap();
    assert!(!format!("{store:?}").contains("hunter"), "{store:?}");
}

#[test]
fn a_sas_token_is_found_by_account_and_taken_apart() {
    let found = |name: &str| {
        azure_credential(&properties(&[(name, "?sv=1&sig=a%2Bb%3D")]), "acct", "acct.dfs.core.windows.net")
    };
    for name in ["adls.sas-token", "adls.sas-token.acct", "adls.sas-token.acct.dfs.core.windows.net"] {
        let pairs = vec![("sv".to_owned(), "1".to_owned()), ("sig".to_owned(), "a+b=".to_owned())];
        assert_eq!(found(name), Some(AzureCredential::SASToken(pairs)), "{name}");
    }
    assert_eq!(found("adls.sas-token.other"), None);
}
