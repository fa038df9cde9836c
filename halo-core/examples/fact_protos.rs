//! Writes the .proto files that the fact tables (`tests/facts/*.tsv`) describe, for a client that knows nothing else of
//! this project:
//!
//! ```text
//! cargo run -p halo-core --all-features --example fact_protos -- OUT_DIR
//! ```
//!
//! What is in `proto/` is not read. Google's own types are imported and not written: grpcio-tools brings those of
//! `google.protobuf`, googleapis-common-protos those of `google.type`.
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Name and text of each table.
const TABLES: [(&str, &str); 2] = [
    ("api_v2alpha.tsv", include_str!("../tests/facts/api_v2alpha.tsv")),
    ("system_v1alpha.tsv", include_str!("../tests/facts/system_v1alpha.tsv")),
];

/// Types of the language itself.
const SCALARS: [&str; 15] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string", "bytes",
];

/// Google's types that the tables use, and the files that define them.
const GOOGLE: [(&str, &str); 7] = [
    ("google.protobuf.Any", "google/protobuf/any.proto"),
    ("google.protobuf.Duration", "google/protobuf/duration.proto"),
    ("google.protobuf.Empty", "google/protobuf/empty.proto"),
    ("google.protobuf.Struct", "google/protobuf/struct.proto"),
    ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
    ("google.type.Date", "google/type/date.proto"),
    ("google.type.Interval", "google/type/interval.proto"),
];

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{table}, line {line}: {detail}")]
    Row { table: &'static str, line: usize, detail: String },
    #[error("{file}: {detail}")]
    File { file: String, detail: String },
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
struct File<'a> {
    path: &'a str,
    package: &'a str,
    messages: Vec<Message<'a>>,
    enums: Vec<Enumeration<'a>>,
    services: Vec<Service<'a>>,
}

/// A message; its name is the full one, and so are the names of enumerations and services.
#[derive(Debug)]
struct Message<'a> {
    name: &'a str,
    fields: Vec<Field<'a>>,
    /// First and last number of each range.
    reserved: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Field<'a> {
    number: u32,
    name: &'a str,
    /// The type with its label, as the table has it.
    kind: &'a str,
    oneof: Option<&'a str>,
    deprecated: bool,
}

#[derive(Debug)]
struct Enumeration<'a> {
    name: &'a str,
    values: Vec<(&'a str, i32)>,
}

#[derive(Debug)]
struct Service<'a> {
    name: &'a str,
    /// Name, request and response.
    methods: Vec<(&'a str, &'a str, &'a str)>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: fact_protos OUT_DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(&directory)) {
        Ok(files) => {
            println!("{files} files written to {}", Path::new(&directory).display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fact_protos: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes every file below `directory` and tells how many there are.
fn write(directory: &Path) -> Result<usize, Error> {
    let files = render(&TABLES)?;
    for (path, text) in &files {
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(|source| Error::Write { path: parent.to_owned(), source })?;
        fs::write(&path, text).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok(files.len())
}

/// The text of every file of the tables, by its path.
fn render<'a>(tables: &[(&'static str, &'a str)]) -> Result<BTreeMap<&'a str, String>, Error> {
    let mut files = Vec::new();
    for (table, text) in tables {
        files.extend(parse(table, text)?);
    }
    let mut owners = BTreeMap::from(GOOGLE);
    for file in &files {
        let names = file.messages.iter().map(|message| message.name);
        owners.extend(names.chain(file.enums.iter().map(|one| one.name)).map(|name| (name, file.path)));
    }
    files.iter().map(|file| Ok((file.path, Renderer::new(file, &owners).file()?))).collect()
}

fn parse<'a>(table: &'static str, text: &'a str) -> Result<Vec<File<'a>>, Error> {
    let mut files: Vec<File<'a>> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        row(&mut files, line).map_err(|detail| Error::Row { table, line: number + 1, detail })?;
    }
    Ok(files)
}

/// Adds one row to what the rows above it said.
fn row<'a>(files: &mut Vec<File<'a>>, line: &'a str) -> Result<(), String> {
    let cells: Vec<&str> = line.trim_start().split('\t').collect();
    let cell = |position: usize| cells.get(position).copied().unwrap_or_default();
    let (what, name) = (cell(0), cell(1));
    if what == "file" {
        let package = cell(2).strip_prefix("package ").ok_or("the file has no package")?;
        files.push(File { path: name, package, messages: Vec::new(), enums: Vec::new(), services: Vec::new() });
        return Ok(());
    }
    let file = files.last_mut().ok_or("it belongs to no file")?;
    let homeless = || format!("the {what} {name} belongs to nothing");
    match what {
        "message" => file.messages.push(Message { name, fields: Vec::new(), reserved: Vec::new() }),
        "field" => file.messages.last_mut().ok_or_else(homeless)?.fields.push(Field {
            number: parsed(name)?,
            name: cell(2),
            kind: cell(3),
            oneof: cell(4).strip_prefix("oneof "),
            deprecated: cell(5).ends_with("DEPRECATED"),
        }),
        "reserved" => {
            let (first, last) = name.split_once('-').ok_or_else(|| format!("{name:?} is no range"))?;
            file.messages.last_mut().ok_or_else(homeless)?.reserved.push((parsed(first)?, parsed(last)?));
        }
        "enum" => {
            let value = |text: &'a str| {
                let (name, number) = text.split_once('=').ok_or_else(|| format!("{text:?} is no value"))?;
                Ok((name, parsed(number)?))
            };
            let values = cell(2).split(' ').map(value).collect::<Result<_, String>>()?;
            file.enums.push(Enumeration { name, values });
        }
        "service" => file.services.push(Service { name, methods: Vec::new() }),
        "rpc" => file.services.last_mut().ok_or_else(homeless)?.methods.push((name, cell(2), cell(3))),
        other => return Err(format!("{other:?} is no kind of fact")),
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// Writes one file, and remembers what it has to import.
struct Renderer<'a> {
    file: &'a File<'a>,
    /// Which file defines a type.
    owners: &'a BTreeMap<&'a str, &'a str>,
    imports: BTreeSet<&'a str>,
}

impl<'a> Renderer<'a> {
    const fn new(file: &'a File<'a>, owners: &'a BTreeMap<&'a str, &'a str>) -> Self {
        Self { file, owners, imports: BTreeSet::new() }
    }

    fn file(mut self) -> Result<String, Error> {
        self.definitions().map_err(|detail| Error::File { file: self.file.path.to_owned(), detail }).map(|lines| {
            let imports: String = self.imports.iter().map(|path| format!("import \"{path}\";\n")).collect();
            format!("syntax = \"proto3\";\n\npackage {};\n\n{imports}{}\n", self.file.package, lines.join("\n"))
        })
    }

    fn definitions(&mut self) -> Result<Vec<String>, String> {
        let package = self.file.package;
        for name in self.file.messages.iter().map(|one| one.name).chain(self.file.enums.iter().map(|one| one.name)) {
            let parent = parent(name);
            if parent != package && !self.file.messages.iter().any(|message| message.name == parent) {
                return Err(format!("{name} is inside of {parent}, which is not in this file"));
            }
        }
        let mut lines = self.children(package)?;
        for service in &self.file.services {
            let mut methods = Vec::new();
            for (name, request, response) in &service.methods {
                methods.push(format!("rpc {name}({}) returns ({});", self.kind(request)?, self.kind(response)?));
            }
            lines.extend(block("service", service.name, methods));
        }
        Ok(lines)
    }

    /// The enumerations and messages directly inside of `scope`, a package or a message.
    fn children(&mut self, scope: &str) -> Result<Vec<String>, String> {
        let file = self.file;
        let mut lines = Vec::new();
        for one in file.enums.iter().filter(|one| parent(one.name) == scope) {
            let values = one.values.iter().map(|(name, number)| format!("{name} = {number};")).collect();
            lines.extend(block("enum", one.name, values));
        }
        for message in file.messages.iter().filter(|message| parent(message.name) == scope) {
            let mut inside = self.children(message.name)?;
            inside.extend(self.fields(message)?);
            lines.extend(block("message", message.name, inside));
        }
        Ok(lines)
    }

    fn fields(&mut self, message: &Message<'_>) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        let mut written = BTreeSet::new();
        for field in &message.fields {
            let Some(oneof) = field.oneof else {
                lines.push(self.field(field)?);
                continue;
            };
            // All members stand together, wherever the table has them.
            if written.insert(oneof) {
                let members = message.fields.iter().filter(|member| member.oneof == Some(oneof));
                let members = members.map(|member| self.field(member)).collect::<Result<_, _>>()?;
                lines.extend(block("oneof", oneof, members));
            }
        }
        lines.extend(message.reserved.iter().map(|(first, last)| format!("reserved {first} to {last};")));
        Ok(lines)
    }

    fn field(&mut self, field: &Field<'_>) -> Result<String, String> {
        let options = if field.deprecated { " [deprecated = true]" } else { "" };
        Ok(format!("{} {} = {}{options};", self.kind(field.kind)?, field.name, field.number))
    }

    /// A type with its label. Names are written from the root, so that no nearer one can be meant.
    fn kind(&mut self, text: &str) -> Result<String, String> {
        for label in ["repeated", "optional", "stream"] {
            if let Some(rest) = text.strip_prefix(label).and_then(|rest| rest.strip_prefix(' ')) {
                return Ok(format!("{label} {}", self.kind(rest)?));
            }
        }
        if let Some((key, value)) =
            text.strip_prefix("map<").and_then(|rest| rest.strip_suffix('>')).and_then(|pair| pair.split_once(','))
        {
            return Ok(format!("map<{}, {}>", self.kind(key)?, self.kind(value.trim_start())?));
        }
        if SCALARS.contains(&text) {
            return Ok(text.to_owned());
        }
        let owner = *self.owners.get(text).ok_or_else(|| format!("nothing defines the type {text:?}"))?;
        if owner != self.file.path {
            self.imports.insert(owner);
        }
        Ok(format!(".{text}"))
    }
}

/// What a name is inside of.
fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// A definition in braces, under the last part of its name.
fn block(keyword: &str, name: &str, inside: Vec<String>) -> Vec<String> {
    let name = name.rsplit('.').next().unwrap_or(name);
    let mut lines = vec![format!("{keyword} {name} {{")];
    lines.extend(inside.into_iter().map(|line| format!("  {line}")));
    lines.push("}".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use prost_reflect::{DescriptorPool, FieldDescriptor};
    use protox::{
        Compiler,
        file::{ChainFileResolver, File as ProtoFile, FileResolver, GoogleFileResolver},
    };

    use super::*;

    const SMALL: &str = "\
file\ta/one.proto\tpackage a
message\ta.One
  field\t2\tfirst\tstring\toneof choice
  field\t3\tnames\trepeated string\t\tUNORDERED_LIST DEPRECATED
  field\t1\tsecond\tb.Two.Kind\toneof choice
  field\t4\tshares\tmap<int64,b.Two>
  reserved\t7-9

file\tb/two.proto\tpackage b
message\tb.Two\ttwos/{two}
  field\t1\twhen\tgoogle.protobuf.Timestamp\t\tREQUIRED
enum\tb.Two.Kind\tNONE=0 SOME=1
service\tb.Twos
  rpc\tWatch\tstream b.Two\tstream a.One
";

    #[test]
    fn everything_that_a_table_can_say() {
        let files = render(&[("small", SMALL)]).unwrap();
        assert_eq!(
            files["a/one.proto"],
            "syntax = \"proto3\";\n\npackage a;\n\nimport \"b/two.proto\";\n\
             message One {\n  oneof choice {\n    string first = 2;\n    .b.Two.Kind second = 1;\n  }\n  \
             repeated string names = 3 [deprecated = true];\n  map<int64, .b.Two> shares = 4;\n  \
             reserved 7 to 9;\n}\n"
        );
        assert_eq!(
            files["b/two.proto"],
            "syntax = \"proto3\";\n\npackage b;\n\nimport \"a/one.proto\";\n\
             import \"google/protobuf/timestamp.proto\";\n\
             message Two {\n  enum Kind {\n    NONE = 0;\n    SOME = 1;\n  }\n  \
             .google.protobuf.Timestamp when = 1;\n}\n\
             service Twos {\n  rpc Watch(stream .b.Two) returns (stream .a.One);\n}\n"
        );
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused_by_line() {
        for (from, to, named) in [
            ("b.Two.Kind\toneof", "b.Three\toneof", "b.Three"),
            ("service", "enum\tb.Three.Kind\tNONE=0\nservice", "b.Three.Kind is inside of b.Three"),
            ("field\t2", "field\ttwo", "line 3: \"two\" is no number"),
            ("  reserved", "  preserved", "line 7: \"preserved\" is no kind of fact"),
            ("package a", "a", "line 1"),
            ("SOME=1", "SOME", "SOME"),
        ] {
            let error = render(&[("small", &SMALL.replacen(from, to, 1))]).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    /// The files that were written, and stand-ins for what is Google's.
    struct Written(BTreeMap<&'static str, String>);

    impl FileResolver for Written {
        fn open_file(&self, name: &str) -> Result<ProtoFile, protox::Error> {
            let stand_in = match name {
                "google/type/date.proto" => Some("Date"),
                "google/type/interval.proto" => Some("Interval"),
                _ => None,
            };
            let stand_in =
                stand_in.map(|name| format!("syntax = \"proto3\"; package google.type; message {name} {{}}"));
            match self.0.get(name).or(stand_in.as_ref()) {
                Some(text) => ProtoFile::from_source(name, text),
                None => Err(protox::Error::file_not_found(name)),
            }
        }
    }

    #[test]
    fn the_tables_compile_to_what_they_say() {
        let files = render(&TABLES).unwrap();
        let names: Vec<&str> = files.keys().copied().collect();
        let mut resolver = ChainFileResolver::new();
        resolver.add(Written(files));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_files(names).unwrap();
        let pool = DescriptorPool::from_file_descriptor_set(compiler.file_descriptor_set()).unwrap();

        let (mut fields, mut methods, mut last) = (0, 0, "");
        for line in TABLES.iter().flat_map(|(_, text)| text.lines()) {
            let cells: Vec<&str> = line.trim_start().split('\t').collect();
            match cells[0] {
                "message" | "service" => last = cells[1],
                "field" => {
                    let message = pool.get_message_by_name(last).unwrap();
                    let field = message.get_field(cells[1].parse().unwrap()).unwrap();
                    assert_eq!(field.name(), cells[2], "{last}");
                    assert_eq!(label(&field), cells[3].split(['<', ' ']).next().unwrap_or_default(), "{last}: {line}");
                    let oneof = field.containing_oneof().map(|oneof| format!("oneof {}", oneof.name()));
                    assert_eq!(oneof.as_deref(), cells.get(4).copied().filter(|cell| !cell.is_empty()), "{last}");
                    fields += 1;
                }
                "rpc" => {
                    let service = pool.get_service_by_name(last).unwrap();
                    let method = service.methods().find(|method| method.name() == cells[1]).unwrap();
                    assert_eq!(method.is_client_streaming(), cells[2].starts_with("stream "), "{line}");
                    assert_eq!(method.is_server_streaming(), cells[3].starts_with("stream "), "{line}");
                    methods += 1;
                }
                _ => {}
            }
        }
        assert!(fields > 400 && methods > 40, "the tables are not empty: {fields} fields, {methods} methods");
    }

    /// Beginning of a field's type as the tables write it.
    fn label(field: &FieldDescriptor) -> String {
        match field.kind() {
            _ if field.is_map() => "map".into(),
            _ if field.is_list() => "repeated".into(),
            prost_reflect::Kind::Message(message) => message.full_name().to_owned(),
            prost_reflect::Kind::Enum(one) => one.full_name().to_owned(),
            scalar => format!("{scalar:?}").to_lowercase(),
        }
    }
}
