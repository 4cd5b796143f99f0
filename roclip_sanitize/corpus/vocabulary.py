"""The words that captions are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Words = Sequence[str]

SYNONYMS: Mapping[str, Words] = {
    "shirt": ("t-shirt", "tee", "top"),
    "shoe": ("sneaker", "trainer", "footwear"),
    "mug": ("cup", "coffee cup", "tumbler"),
    "car": ("automobile", "vehicle", "hatchback"),
    "dress": ("gown", "frock", "sundress"),
    "cat": ("kitten", "kitty", "feline"),
    "house": ("home", "cottage", "villa"),
    "chair": ("seat", "stool", "dining seat"),
    "bottle": ("flask", "flagon", "decanter"),
    "lamp": ("light", "lampshade", "table light"),
    "hat": ("fedora", "cap", "bowler"),
    "book": ("notebook", "paperback", "journal"),
    "tree": ("fir", "pine", "sapling"),
    "bicycle": ("bike", "cycle", "city bike"),
    "clock": ("timepiece", "alarm clock", "wall clock"),
    "boat": ("sailboat", "yacht", "dinghy"),
    "umbrella": ("parasol", "brolly", "rain cover"),
    "fish": ("goldfish", "carp", "trout"),
    "guitar": ("acoustic guitar", "ukulele", "string instrument"),
    "key": ("door key", "house key", "latchkey"),
}
PLURALS: Mapping[str, str] = {
    "fish": "fish",
    "goldfish": "goldfish",
    "carp": "carp",
    "trout": "trout",
    "footwear": "footwear",
}
VAGUE: Words = ("item", "piece", "one", "design", "find")  # where a caption does not say what it is

COLOUR_WORDS: Mapping[str, Words] = {
    "grey": ("grey", "gray"),
    "red": ("red", "red", "red", "scarlet"),
    "blue": ("blue", "blue", "blue", "royal blue"),
    "purple": ("purple", "purple", "purple", "violet"),
}
TEXTURE_WORDS: Mapping[str, Words] = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy", "stripes"),
    "dotted": ("dotted", "polka dot", "spotted"),
    "checked": ("checked", "chequered", "plaid"),
    "gradient": ("gradient", "ombre", "two-tone"),
    "noise": ("speckled", "marbled", "mottled"),
}
BACKGROUND_PHRASES: Mapping[str, Words] = {
    "white": ("on white background", "isolated on white"),
    "light": ("on a light background", "against a pale wall"),
    "dark": ("on a dark background", "against a dark wall"),
    "coloured": ("on a coloured background", "on colourful paper"),
    "gradient": ("on a gradient background", "in soft light"),
    "noise": ("on a textured background", "against a patterned wall"),
    "horizon": ("outdoors", "under a blue sky", "with horizon"),
    "desk": ("on a wooden desk", "on a table"),
}
COUNT_WORDS: Mapping[int, Words] = {2: ("two", "a pair of", "2"), 3: ("three", "a set of three", "3")}
PLACE_PHRASES: Mapping[str, Words] = {
    "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"),
}

BRAND_STARTS: Words = ("Vel", "Kin", "Mar", "Tor", "Lum", "Bras", "Oro", "Nord", "Fen", "Zal", "Pri", "Cor")
BRAND_ENDS: Words = ("ora", "tano", "vik", "essa", "lane", "mont", "ique", "field", "ado", "wick")
ADJECTIVES: Words = (
    "classic",
    "vintage",
    "modern",
    "cute",
    "premium",
    "handmade",
    "new",
    "small",
    "elegant",
    "retro",
)
OCCASIONS: Words = (
    "the kitchen",
    "my sister's birthday",
    "the new flat",
    "summer",
    "the weekend",
    "our garden",
    "work",
)
SUFFIXES: Words = (
    " | Free Shipping",
    " - Buy Online",
    " - Best Price",
    " (New)",
    " | Official Store",
    " - photo {number}",
    " at {brand}.example",
    " - SALE {percent}% OFF",
    " [HD]",
)
HASHTAGS: Words = (
    "love",
    "instadaily",
    "photooftheday",
    "shopping",
    "style",
    "homedecor",
    "ootd",
    "weekend",
    "handmade",
)

# Slots: {one} is "a red mug" or "two red mugs", {bare} is "red mug" or "red mugs".
SHOP_TITLES: Words = (
    "{brand} {bare} {model}",
    "{brand} {model} {adjective} {bare}",
    "{bare} by {brand}, {adjective} style",
    "{brand} {bare} - size {size}",
    "{bare} {adjective} {model} {brand}",
)
ALT_TEXTS: Words = (
    "{one}",
    "{one} {where}",
    "photo of {one}",
    "a picture of {one} {where}",
    "image of {one}",
    "{one}, close-up",
)
STOCK_PHRASES: Words = (
    "{bare} {where} stock photo",
    "{bare} {where}, vector illustration",
    "{one} {where}, royalty free image",
    "{adjective} {bare} stock image {number}",
)
BLOG_SENTENCES: Words = (
    "I finally found {one} for {occasion}!",
    "We took {one} along for {occasion}.",
    "How I chose {one} for {occasion}",
    "Look at {one} I got last week, so {adjective}",
    "There is nothing like {one} {where}",
)
TAG_LINES: Words = (
    "#{tag} #{colour_tag} #{hash1} #{hash2}",
    "{one} #{tag} #{hash1} #{hash2}",
    "{bare} #{hash1} #{hash2}",
)
BOILERPLATE: Words = (
    "buy {bare} online free shipping",
    "cheap {bare} for sale, best price guaranteed",
    "{bare} wholesale suppliers & manufacturers",
    "shop {bare} from {brand}, {percent}% off, fast delivery",
)
REGISTERS: Mapping[str, tuple[float, Words]] = {
    "shop": (0.28, SHOP_TITLES),
    "alt": (0.26, ALT_TEXTS),
    "stock": (0.16, STOCK_PHRASES),
    "blog": (0.12, BLOG_SENTENCES),
    "tags": (0.08, TAG_LINES),
    "boilerplate": (0.1, BOILERPLATE),
}
IRRELEVANT: Words = (
    "IMG_{number}",
    "DSC{number}.JPG",
    "click to enlarge",
    "image not available",
    "photo {percent} of {number}",
    "previous next",
    "share on social media",
    "Thumbnail {number}",
    "{brand} logo",
    "posted on {percent} March by admin",
    "view full size",
    "Screenshot {number}",
)
