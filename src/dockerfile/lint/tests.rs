//! The rules one by one: a file, and the lines with what is found there. The cases are those of BuildKit's own tests, and more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::ignore::Ignore;
use super::super::tests::parsed;
use super::*;

/// What a check depends on, with what most need.
struct Setting {
    arguments: BTreeMap<String, String>,
    stages: Option<BTreeSet<usize>>,
    ignore: Option<Ignore>,
    config: Option<Config>,
    base: Base,
}

impl Default for Setting {
    fn default() -> Self {
        Self { arguments: BTreeMap::new(), stages: None, ignore: None, config: None, base: Base::Bare }
    }
}

impl Setting {
    fn arguments(pairs: &[(&str, &str)]) -> Self {
        let arguments = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { arguments, ..Self::default() }
    }

    fn findings(&self, text: &str) -> Vec<Finding> {
        let file = parsed(text);
        let globals = [
            ("BUILDPLATFORM", "linux/amd64"),
            ("BUILDARCH", "amd64"),
            ("TARGETPLATFORM", "linux/arm64"),
            ("TARGETARCH", "arm64"),
            ("TARGETSTAGE", "default"),
        ];
        let globals = globals.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = self.config.clone().unwrap_or_else(|| configuration(&file).expect("a configuration"));
        let platform = Platform::linux("arm64", None);
        let base = |_: &str, _: &Platform| self.base.clone();
        let facts = Facts {
            arguments: &self.arguments,
            globals: &globals,
            platform: &platform,
            stages: self.stages.as_ref(),
            ignore: self.ignore.as_ref(),
            base: &base,
        };
        lint(&file, &config, &facts)
    }

    /// Checks rules and BuildKit's lines.
    #[track_caller]
    fn check(&self, text: &str, expected: &[(usize, &str)]) {
        let found: Vec<(usize, &str)> = self.findings(text).iter().map(|finding| (finding.span.first_line, finding.rule.name)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[track_caller]
fn check(text: &str, expected: &[(usize, &str)]) {
    Setting::default().check(text, expected);
}

/// Checks the messages.
#[track_caller]
fn messages(setting: &Setting, text: &str, expected: &[&str]) {
    let found: Vec<String> = setting.findings(text).into_iter().map(|finding| finding.message).collect();
    assert_eq!(found, expected, "{text}");
}

/// Checks the first finding's place: line, column and what the carets cover.
#[track_caller]
fn place(text: &str, expected: (usize, usize, &str)) {
    let findings = Setting::default().findings(text);
    let Place::Text(snippet) = &findings[0].place else { panic!("no place in a text") };
    let marked: String = snippet.text.chars().skip(snippet.column - 1).take(snippet.width).collect();
    assert_eq!((snippet.line, snippet.column, marked.as_str()), expected, "{text}");
}

#[test]
fn stage_names() {
    check("FROM scratch AS BadStageName\nFROM scratch as base2\nFROM scratch AS base3\n", &[(1, "StageNameCasing"), (2, "FromAsCasing")]);
    check("from scratch AS base\nfrom scratch as base2\n", &[(1, "FromAsCasing")]);
    check("FROM scratch AS b\nFROM scratch AS b\n", &[(2, "DuplicateStageName")]);
    check("FROM scratch AS b1\nFROM scratch AS b2\n", &[]);
    check("FROM scratch AS scratch\nFROM scratch AS context\n", &[(1, "ReservedStageName"), (2, "ReservedStageName")]);
    check("FROM scratch\nFROM scratch AS a\n", &[]);
    messages(
        &Setting::default(),
        "FROM scratch AS Bad\nFROM scratch as bad\nFROM scratch AS context\n",
        &[
            "Stage name 'Bad' should be lowercase",
            "'as' and 'FROM' keywords' casing do not match",
            "Duplicate stage name \"bad\", stage names should be unique",
            "Stage name should not use the same name as reserved stage \"context\"",
        ],
    );
    place("FROM as AS as\nFROM x AS Bad\n", (2, 11, "Bad"));
    place("FROM scratch as base\n", (1, 14, "as"));
}

#[test]
fn empty_continuations() {
    check("FROM scratch\n# a comment\nCOPY Dockerfile \\\n\n.\nCOPY Dockerfile \\\n.\n", &[(5, "NoEmptyContinuation")]);
    check("FROM scratch\nCOPY a \\\n# comment\n  b\n", &[]);
    check("FROM scratch\nCOPY \\\n\n<<E b\n\ntext\n\nE\n", &[(4, "NoEmptyContinuation")]);
    check("FROM scratch\nCOPY a b \\\n\n\n", &[(4, "NoEmptyContinuation")]);
    check("FROM scratch\nCOPY a b\\\\\n\n", &[]);
    check("FROM scratch\n\n\nCOPY <<E b\n\n\nE\n", &[]);
    place("FROM scratch\nCOPY a \\\n\n  b\n", (4, 3, "b"));
}

#[test]
fn instruction_casing() {
    check("From scratch as base\nFROM scratch AS base2\n", &[(1, "ConsistentInstructionCasing")]);
    check("FROM scratch\ncopy Dockerfile /foo\nCOPY Dockerfile /bar\n", &[(2, "ConsistentInstructionCasing")]);
    check("frOM scratch as base\nfrom scratch as base2\n", &[(1, "ConsistentInstructionCasing")]);
    check("from scratch\nCOPY Dockerfile /foo\ncopy Dockerfile /bar\n", &[(2, "ConsistentInstructionCasing")]);
    check("from scratch\nCOPY a /foo\nCOPY a /bar\n", &[(1, "ConsistentInstructionCasing")]);
    check("from scratch\ncopy a /foo\n", &[]);
    check("FROM a\nRUN <<'EOT'\nenv\nEOT\n", &[]);
    // Arguments before the first stage belong to none.
    check("arg x\nFROM a\n", &[]);
    messages(
        &Setting::default(),
        "FROM a\nRun x\ncopy a b\n",
        &[
            "Command 'Run' should match the case of the command majority (uppercase)",
            "Command 'copy' should match the case of the command majority (uppercase)",
        ],
    );
}

#[test]
fn shell_form_of_commands() {
    check("FROM scratch\nCMD mycommand\n", &[(2, "JSONArgsRecommended")]);
    check("FROM scratch\nENTRYPOINT mycommand\n", &[(2, "JSONArgsRecommended")]);
    check("FROM scratch\nSHELL [\"/s\"]\nCMD mycommand\n", &[]);
    check("FROM scratch AS base\nSHELL [\"/s\"]\n\nFROM base\nENTRYPOINT mycommand\n", &[]);
    check("FROM scratch\nRUN x\nCMD []\nHEALTHCHECK CMD x\n", &[]);
    let config: ImageConfig = serde_json::from_value(serde_json::json!({
        "architecture": "arm64", "os": "linux", "config": {"Shell": ["/s", "-c"]}, "rootfs": {"type": "layers", "diff_ids": []}
    }))
    .expect("a config");
    Setting { base: Base::Known(Box::new(config)), ..Setting::default() }.check("FROM image\nCMD x\n", &[]);
}

#[test]
fn old_forms() {
    check("FROM scratch\nMAINTAINER me@example.org\n", &[(2, "MaintainerDeprecated")]);
    check("FROM scratch\nENV k value\nLABEL key value\n", &[(2, "LegacyKeyValueFormat"), (3, "LegacyKeyValueFormat")]);
    check("FROM scratch\nENV k=value\nLABEL key=value\n", &[]);
    messages(
        &Setting::default(),
        "FROM scratch\nENV k value\nMAINTAINER x\n",
        &[
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "Maintainer instruction is deprecated in favor of using label",
        ],
    );
}

#[test]
fn arguments_in_from() {
    check("ARG base=scratch\nFROM $base\n", &[]);
    check("FROM --platform=$BUILDPLATFORM scratch\n", &[]);
    check("ARG DEBUG\nFROM scratch${DEBUG}\n", &[]);
    check("ARG DEBUG\nFROM scra${DEBUG:-tch}\n", &[]);
    check("ARG DEBUG=\"\"\nFROM scratch${DEBUG-@bogus}\n", &[]);
    check("FROM --platform=$BULIDPLATFORM scratch\n", &[(1, "UndefinedArgInFrom")]);
    check("ARG tag=latest\nFROM busybox:${tag}${version} AS b\n", &[(2, "UndefinedArgInFrom")]);
    messages(
        &Setting::default(),
        "ARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox\nFROM a$version\n",
        &["FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)"],
    );
    messages(&Setting::default(), "FROM a$version\n", &["FROM argument 'version' is not declared"]);
    place("FROM busybox${tag}\n", (1, 15, "tag"));
}

#[test]
fn default_arguments_in_from() {
    for (name, value, text, expected) in [
        ("VERSION", "latest", "ARG VERSION\nFROM busybox:$VERSION\n", &[(2, "InvalidDefaultArgInFrom")][..]),
        ("IMAGE", "busybox", "ARG IMAGE\nFROM $IMAGE\n", &[(2, "InvalidDefaultArgInFrom")]),
        ("SFX", "box:latest", "ARG SFX=\"box:\"\nFROM busy${SFX}\n", &[(2, "InvalidDefaultArgInFrom")]),
        ("VERSION", "latest", "ARG VERSION=\"latest\"\nFROM busybox:${VERSION}\n", &[]),
        ("V", "-musl", "ARG V=\"\"\nFROM busybox:stable${V}\n", &[]),
        ("V", "-musl", "ARG V\nFROM busybox:stable${V}\n", &[]),
    ] {
        Setting::arguments(&[(name, value)]).check(text, expected);
    }
    messages(
        &Setting::arguments(&[("V", "1")]),
        "ARG V\nFROM a:$V\n",
        &["Default value for ARG a:$V results in empty or invalid base image name"],
    );
}

#[test]
fn platforms_in_from() {
    check("FROM --platform=$TARGETPLATFORM scratch\n", &[(1, "RedundantTargetPlatform")]);
    check("FROM --platform=${TARGETPLATFORM} scratch\n", &[(1, "RedundantTargetPlatform")]);
    check("FROM --platform=linux/$TARGETARCH scratch\n", &[]);
    check("FROM --platform=linux/amd64 scratch\n", &[(1, "FromPlatformFlagConstDisallowed")]);
    check("FROM --platform=linux/amd64 scratch AS my_amd64_stage\n", &[]);
    check("FROM --platform=linux/amd64 scratch AS linux\n", &[]);
    messages(
        &Setting::default(),
        "FROM --platform=${TARGETPLATFORM} scratch\nFROM --platform=linux/amd64 scratch AS x\n",
        &[
            "Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
            "FROM --platform flag should not use constant value \"linux/amd64\"",
        ],
    );
}

#[test]
fn base_images() {
    let config: ImageConfig = serde_json::from_value(serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
        "config": {"Env": ["JAVA_HOME=/java"], "OnBuild": ["ARG given", "ENV also=$given"]},
    }))
    .expect("a config");
    let setting = Setting { base: Base::Known(Box::new(config)), ..Setting::default() };
    setting.check("FROM java\nCOPY a $JAVA_HOME/$given/$also\n", &[(1, "InvalidBaseImagePlatform")]);
    messages(
        &setting,
        "FROM java\nCOPY a $JAVAHOME\n",
        &[
            "Base image java was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for current build",
            "Usage of undefined variable '$JAVAHOME' (did you mean $JAVA_HOME?)",
        ],
    );
    let unknown = Setting { base: Base::Unknown, ..Setting::default() };
    unknown.check("FROM java AS a\nCOPY a $JAVA_HOME\nFROM a\nCOPY a $JAVA_HOME\n", &[]);
}

#[test]
fn undefined_variables() {
    check("FROM scratch\nARG foo\nCOPY Dockerfile${foo} .\n", &[]);
    check("FROM alpine AS base\nARG foo=Dockerfile\n\nFROM base\nCOPY $foo .\n", &[]);
    check("FROM alpine\nRUN echo $x\nCMD [\"$x\"]\nONBUILD COPY $x y\n", &[]);
    check("FROM alpine\nCOPY $foo .\nARG foo=bar\nRUN echo $foo\n", &[(2, "UndefinedVar")]);
    check("ARG foo=1\nFROM alpine\nCOPY $foo .\n", &[(3, "UndefinedVar")]);
    check("ARG foo=1\nFROM alpine\nARG foo\nENV bar=$foo\nWORKDIR /$bar\n", &[]);
    check("FROM alpine\nENV a=b c=$a\n", &[(2, "UndefinedVar")]);
    check("FROM alpine\nEXPOSE $a\n", &[]);
    check(
        "FROM alpine\nLABEL a=$b\nUSER $b\nVOLUME $b\nSTOPSIGNAL $b\nADD --chown=$b x /$c\nRUN --mount=type=bind,target=/$b x\nARG y=$b\n",
        &[
            (2, "UndefinedVar"),
            (3, "UndefinedVar"),
            (4, "UndefinedVar"),
            (5, "UndefinedVar"),
            (6, "UndefinedVar"),
            (6, "UndefinedVar"),
            (7, "UndefinedVar"),
            (8, "UndefinedVar"),
        ],
    );
    check("FROM alpine\nCOPY <<E <<'F' /d/\n$a\nE\n$b\nF\n", &[(2, "UndefinedVar")]);
    check("FROM scratch AS a\nONBUILD COPY $x /y\nFROM a\n", &[(3, "UndefinedVar")]);
    messages(
        &Setting::default(),
        "FROM alpine\nARG DIR_ASSETS=assets/\nCOPY $DIR_ASSET .\nENV PATH=$PAHT:/bin\n",
        &[
            "Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)",
            "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
        ],
    );
    place("FROM alpine\nENV a=1 \\\n    b=${nope:-x}\n", (3, 7, "${nope"));
}

#[test]
fn only_reachable_stages_are_followed() {
    let text = "FROM scratch AS a\nFROM a AS b\nENV k value\nFROM a AS c\nENV k value\n";
    let setting = Setting { stages: Some(BTreeSet::from([0, 2])), ..Setting::default() };
    setting.check(text, &[(5, "LegacyKeyValueFormat")]);
    check(text, &[(3, "LegacyKeyValueFormat"), (5, "LegacyKeyValueFormat")]);
}

#[test]
fn relative_directories() {
    check("FROM scratch\nWORKDIR app/\nWORKDIR sub\n", &[(2, "WorkdirRelativePath")]);
    check("FROM scratch AS a\nWORKDIR /app\n\nFROM a AS b\nWORKDIR subdir/\n", &[]);
    check("FROM scratch\nARG d=/x\nWORKDIR $d\n", &[]);
    messages(
        &Setting::default(),
        "FROM scratch\nWORKDIR app/\n",
        &["Relative workdir \"app/\" can have unexpected results if the base image changes"],
    );
}

#[test]
fn instructions_of_which_the_last_counts() {
    let text =
        "FROM scratch\nENTRYPOINT [\"/a\"]\nENTRYPOINT [\"/b\"]\nCMD [\"/a\"]\nCMD [\"/b\"]\nHEALTHCHECK CMD [\"/a\"]\nHEALTHCHECK NONE\n";
    check(text, &[(2, "MultipleInstructionsDisallowed"), (4, "MultipleInstructionsDisallowed"), (6, "MultipleInstructionsDisallowed")]);
    check("FROM scratch AS a\nCMD [\"/a\"]\nFROM a AS b\nCMD [\"/b\"]\n", &[]);
    messages(
        &Setting::default(),
        "FROM scratch\nCMD [\"/a\"]\nCOPY a b\nCMD [\"/b\"]\n",
        &["Multiple CMD instructions should not be used in the same stage because only the last one will be used"],
    );
}

#[test]
fn secrets_in_variables() {
    let text = "FROM scratch\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=foo\nENV password=bar secret=baz\n\
                ARG super_duper_secret_token=foo auth=bar\nENV apikey=bar sunflower=foo\nENV git_key=\nENV PUBLIC_KEY=\nARG public_token\n\
                ARG monkey\n";
    let lines = [2, 3, 4, 4, 5, 5, 6, 7];
    check(text, &lines.map(|line| (line, "SecretsUsedInArgOrEnv")));
    messages(
        &Setting::default(),
        "FROM scratch\nENV git_key=\n",
        &["Do not use ARG or ENV instructions for sensitive data (ENV \"git_key\")"],
    );
    place("FROM scratch\nENV a=git_key git_key=\n", (2, 7, "git_key"));
}

#[test]
fn ports() {
    check("FROM scratch\nEXPOSE 80 80/tcp 90-100/udp\n", &[]);
    check("FROM scratch\nEXPOSE 80/TcP\n", &[(2, "ExposeProtoCasing")]);
    check(
        "FROM scratch\nEXPOSE 80:80\nEXPOSE 127.0.0.1:80:80/TCP\n",
        &[(2, "ExposeInvalidFormat"), (3, "ExposeInvalidFormat"), (3, "ExposeProtoCasing")],
    );
    messages(
        &Setting::default(),
        "FROM scratch\nARG p=80/TCP\nEXPOSE $p [::1]:8:8\n",
        &[
            "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '[::1]:8:8'",
        ],
    );
}

#[test]
fn ignored_files() {
    let ignore = || Some(Ignore::parse(".dockerignore", b"Dockerfile\nnode_modules\n").expect("patterns"));
    let text = "FROM scratch\nCOPY Dockerfile .\nADD ./Dockerfile /windy\nCOPY node_modules/x /y\nCOPY --from=a Dockerfile /x\nADD https://x/Dockerfile /\n";
    Setting { ignore: ignore(), ..Setting::default() }.check(text, &[]);
    let setting = Setting { ignore: ignore(), config: Config::parse("skip=all;experimental=CopyIgnoredFile").ok(), ..Setting::default() };
    setting.check(text, &[2, 3, 4].map(|line| (line, "CopyIgnoredFile")));
    messages(
        &setting,
        "FROM scratch\nCOPY Dockerfile .\nADD Dockerfile /x\n",
        &[
            "Attempting to Copy file \"Dockerfile\" that is excluded by .dockerignore",
            "Attempting to Add file \"Dockerfile\" that is excluded by .dockerignore",
        ],
    );
}

#[test]
fn descriptions() {
    let directive = "# check=experimental=InvalidDefinitionDescription\n";
    check(
        &format!(
            "{directive}# foo this is the foo\nARG foo=bar\n\n# base this\nFROM scratch AS base\n\n# baz it\nARG foo=1 baz=2\n#\nARG bit=bat\n\n# else\nCOPY a b\n# not above\n\nARG c\n"
        ),
        &[],
    );
    let text = format!(
        "{directive}# bar this\nARG foo=bar\n# BasE this\nFROM scratch AS base\n# bad\nARG version=latest\n# bad\nARG foo=baz bar=qux\n"
    );
    check(&text, &[3, 5, 7, 9].map(|line| (line, "InvalidDefinitionDescription")));
    messages(
        &Setting::default(),
        &text,
        &[
            "Comment for ARG should follow the format: `# foo <description>`",
            "Comment for FROM should follow the format: `# base <description>`",
            "Comment for ARG should follow the format: `# version <description>`",
            "Comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    );
}

#[test]
fn rules_are_skipped() {
    let body = "FROM scratch as base\ncopy Dockerfile .\n";
    for (directive, expected) in [
        ("#check=skip=all\n", &[][..]),
        ("#check=skip=all;error=true\n", &[]),
        ("#check=skip=ConsistentInstructionCasing,FromAsCasing\n", &[]),
        ("#check=skip=ConsistentInstructionCasing\n", &[(2, "FromAsCasing")]),
        ("# Check = skip = FromAsCasing\n", &[(3, "ConsistentInstructionCasing")]),
    ] {
        check(&format!("{directive}{body}"), expected);
    }
    check(
        "FROM scratch\n\n# set elsewhere\n# check=skip=UndefinedVar // by the base\nCOPY $a b\nCOPY $a b\n# check=skip=all\n\nCOPY $a b\n",
        &[(6, "UndefinedVar"), (9, "UndefinedVar")],
    );
    assert_eq!(configuration(&parsed("# check=nonsense\nFROM a\n")).unwrap_err().what(), "unknown check option `nonsense`");
}
