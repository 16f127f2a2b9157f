//! The API's description, made from the types that it serves.

use std::sync::LazyLock;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    Refusal,
    event::EventLine,
    events::{EventsQuery, Untold},
    findings::{FindingsPage, FindingsQuery},
    snapshot::Snapshot,
};

static DOCUMENT: LazyLock<Value> = LazyLock::new(describe);

/// The document, of `OpenAPI` 3.1.
#[must_use]
pub fn document() -> &'static Value {
    &DOCUMENT
}

fn describe() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    // What is served may have been left out by a reader, so the two contracts differ.
    let mut served = settings.clone().for_serialize().into_generator();
    let mut asked = settings.for_deserialize().into_generator();
    let paths = json!({
        "/api/v1/snapshot": get::<Snapshot>(
            &mut served,
            "States, limits and findings by the last census, and what was counted since.",
            &[],
        ),
        "/api/v1/findings": get::<FindingsPage<'_>>(
            &mut served,
            "The findings of the last census, filtered, sorted and paged.",
            &parameters::<FindingsQuery>(&mut asked),
        ),
        "/api/v1/events": stream(&mut served, &parameters::<EventsQuery>(&mut asked)),
    });
    let mut schemas = served.take_definitions(true);
    for (name, schema) in asked.take_definitions(true) {
        schemas.entry(name).or_insert(schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "connstate",
            "version": "1",
            "description": "Which TCP connections do not finish closing, whose they are, and why. \
                            Fields may be added within a version; none goes or changes its meaning.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// The path of the stream. What its `data:` lines hold has no place in the standard, so it is in
/// `x-events`, by the type of the server-sent event.
fn stream(generator: &mut SchemaGenerator, parameters: &[Value]) -> Value {
    let refusal = generator.subschema_for::<Refusal>().to_value();
    let refused = |description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": refusal } },
        })
    };
    json!({ "get": {
        "summary": "Events as they happen, as server-sent events: each data line is JSON.",
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "A stream without an end. Its first bytes, a comment, come once all \
                                that is asked for is told.",
                "content": { "text/event-stream": {
                    "schema": { "type": "string" },
                    "x-events": {
                        "message": generator.subschema_for::<EventLine>().to_value(),
                        "lost": generator.subschema_for::<Untold>().to_value(),
                    },
                } },
            },
            "400": refused("A parameter is unknown or out of its range."),
            "409": refused("Another stream asks for another cgroup: one is watched at a time."),
            "503": { "description": "Enough streams are open: the answer says when to ask again." },
        },
    } })
}

/// A path that answers with a `T`.
fn get<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    summary: &str,
    parameters: &[Value],
) -> Value {
    let answer = |description: &str, schema: Value| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": schema } },
        })
    };
    let refusal = generator.subschema_for::<Refusal>().to_value();
    let mut responses = json!({
        "200": answer("It is known.", generator.subschema_for::<T>().to_value()),
        "503": answer("The first census is not complete.", refusal.clone()),
    });
    if !parameters.is_empty() {
        responses["400"] = answer("A parameter is unknown or out of its range.", refusal);
    }
    json!({ "get": { "summary": summary, "parameters": parameters, "responses": responses } })
}

/// The fields of a query, as parameters.
fn parameters<T: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Value> {
    let schema = T::json_schema(generator).to_value();
    let fields = schema["properties"].as_object().into_iter().flatten();
    fields
        .map(|(name, schema)| {
            json!({
                "name": name,
                "in": "query",
                "description": schema["description"],
                "schema": schema,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference to a schema.
    fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(target) if name == "$ref" => into.push(target),
                        _ => references(value, into),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let mut named = Vec::new();
        references(document, &mut named);
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            let path = name.strip_prefix('#').unwrap();
            assert!(document.pointer(path).is_some(), "{name}");
        }
    }

    #[test]
    fn every_parameter_says_what_it_does() {
        for (path, count) in [("findings", 8), ("events", 6)] {
            let path = &document()["paths"][format!("/api/v1/{path}")];
            let parameters = path["get"]["parameters"].as_array().unwrap();
            assert_eq!(parameters.len(), count);
            for parameter in parameters {
                assert!(parameter["description"].is_string(), "{parameter}");
            }
        }
    }
}
