"""Words of the control concepts, from the same domain as those of the embedded sets."""

AGENTS = (
    "farmer", "baker", "driver", "singer", "carpenter", "plumber",
    "waiter", "pilot", "captain", "porter", "guard", "king",
)  # fmt: skip

# Past and present.
VERBS = (
    ("carried", "carries"), ("watched", "watches"), ("dropped", "drops"), ("found", "finds"),
    ("lifted", "lifts"), ("cleaned", "cleans"), ("moved", "moves"), ("touched", "touches"),
    ("hid", "hides"), ("kept", "keeps"), ("lost", "loses"), ("took", "takes"),
)  # fmt: skip

OBJECTS = (
    "basket", "lamp", "ladder", "barrel", "mirror", "chair",
    "bucket", "carpet", "kettle", "blanket", "candle", "drum",
)  # fmt: skip

PLACES = (
    "barn", "bridge", "church", "station", "mill", "castle",
    "kitchen", "garage", "tower", "harbour", "cottage", "temple",
)  # fmt: skip

WEATHER = (
    "storm", "frost", "thunder", "drizzle", "fog", "hail",
    "snow", "breeze", "sunshine", "lightning", "rainbow", "mist",
)  # fmt: skip

FOOD = (
    "soup", "stew", "pastry", "gravy", "pudding", "sauce",
    "omelette", "pancake", "salad", "porridge", "sandwich", "cheese",
)  # fmt: skip
