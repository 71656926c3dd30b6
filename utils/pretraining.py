"""Say in words what a method and its tower rest on, and whether the tower was trained on the tested data set."""

# Data set to what a line on pretraining calls its source; labels of a source cover the classes of a few-shot test.
SOURCES = {"kinetics100": ("kinetics",), "ssv2_full": ("something-something", "ssv2"),
           "ssv2_small": ("something-something", "ssv2"), "ucf101": ("ucf101",), "hmdb51": ("hmdb",)}
FROM_SCRATCH = "random"  # what an encoder says of random weights


def has_seen(pretraining: str, data_set: str) -> bool:
    """Return whether a line on pretraining names the source of a data set: the tower has then seen the test classes."""
    return any(name in pretraining.lower() for name in SOURCES.get(data_set, ()))


def kind_words(transductive: bool) -> str:
    """Return "inductive", or "transductive" with what it means."""
    return "transductive: a query's scores depend on the other queries" if transductive else "inductive"


def text_words(texts: str | None) -> str:
    """Say which class texts a method reads."""
    known = {None: "reads no text", "names": "class texts: names",
             "llm": "class texts: sentences from a file (llm)"}
    return known.get(texts, f"class texts: {texts}")


def pretraining_words(pretraining: str, data_set: str) -> str:
    """Say what the tower was trained on before, with a mark where it has seen the test classes."""
    if pretraining == FROM_SCRATCH:
        return "tower from random weights"
    mark = ", which has seen the test classes" if has_seen(pretraining, data_set) else ""
    return f"tower pretrained on: {pretraining}{mark}"
