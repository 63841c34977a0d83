//! The rules of the schema, evaluated as an API server does: what breaks one is told in a sentence, and what Microsoft
//! allows breaks none.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod schema;
mod table;

use std::sync::OnceLock;

use kube::core::cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use mailroute_route::address::is_address;
use proptest::prelude::*;
use serde_json::{Value, json};

use self::schema::schema;
use self::table::{Table, sentences};

static SERVER: OnceLock<Server> = OnceLock::new();

/// What stands in for the API server.
struct Server {
    schema: Value,
    compiled: CompiledSchema,
    validator: Validator,
}

impl Server {
    fn new() -> Self {
        let schema = schema();
        let compiled = compile_schema(&schema);
        assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
        Self { schema, compiled, validator: Validator::new() }
    }

    /// What is wrong with an object, in the words of the rules, when the defaults have been filled in.
    fn messages(&self, object: &Value) -> Vec<String> {
        let object = apply_defaults(&self.schema, object);
        match self.validator.validate_compiled(&self.compiled, &object, None) {
            Ok(()) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }
}

#[test]
fn what_cannot_work_is_refused_in_a_sentence() {
    let (table, server) = (Table::read(), Server::new());
    for case in &table.refused {
        let messages = server.messages(&table.object(case));
        assert!(messages.iter().any(|message| message.contains(&case.told)), "{case:?}: {messages:?}");
    }
}

#[test]
fn what_microsoft_allows_breaks_no_rule() {
    let (table, server) = (Table::read(), Server::new());
    for object in table.unchanged().chain(table.allowed.iter().map(|case| table.object(case))) {
        assert_eq!(server.messages(&object), Vec::<String>::new(), "{object:#}");
    }
}

proptest! {
    // All rules are evaluated each time, which is slow.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What the expression says, the parser of [`is_address`] says; the sidecar's property tests compare its own with that.
    #[test]
    fn an_address_is_read_alike_by_schema_and_parser(
        address in "[ -~é]{0,12}|[a-z.'`/@\"-]{1,9}@[a-zA-Z0-9._-]{1,9}|\\*@[a-z.]{1,6}",
    ) {
        let (server, mut object) = (SERVER.get_or_init(Server::new), Table::read().unchanged().next().unwrap());
        object["spec"]["senders"] = json!({"allow": [address]});
        let listed = server.messages(&object).is_empty();
        prop_assert_eq!(listed, is_address(&address));
        object["spec"]["senders"] = json!({});
        object["spec"]["clientSubmission"]["mailbox"] = json!(address);
        let of_mailbox = |message: &String| message.contains("address of one mailbox");
        prop_assert_eq!(!server.messages(&object).iter().any(of_mailbox), is_address(&address));
    }
}

#[test]
fn every_refusal_is_expected_in_certain_words() {
    let table = Table::read();
    let refused = table.refused.iter().chain(&table.refused_by_type);
    let silent: Vec<_> = refused.filter(|case| case.told.is_empty()).collect();
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn no_rule_is_left_without_a_route_that_breaks_it() {
    let (table, server) = (Table::read(), Server::new());
    let told: Vec<_> = table.refused.iter().flat_map(|case| server.messages(&table.object(case))).collect();
    let sentences = sentences(&server.schema);
    assert!(sentences.len() > 20, "the rules are not read right: {sentences:#?}");
    for sentence in sentences {
        assert!(told.iter().any(|message| message.contains(&sentence)), "nothing breaks: {sentence}");
    }
}
