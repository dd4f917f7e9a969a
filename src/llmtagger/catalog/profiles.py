"""The formats that shop systems export, each recognised by its header alone.

A profile says which columns are which fields, where the attributes stand, how a cell of tags is
split and joined, and which rows are variants of a product. Columns are matched by their folded
names, as in `products.fold`: "Body (HTML)" is `body_(html)`. A table that no profile recognises is
read by the general synonyms of `products.SYNONYMS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmtagger.catalog.products import Synonyms, fold

_LOCALE = r"(?:_[a-z]{2,3}_[a-z]{2})?(?:_\w+)?"  # Akeneo: name-en_US, description-en_US-mobile
_TAGS = ("tags",)  # the column that is added where a format has none


@dataclass(frozen=True, slots=True)
class Variants:
    """Rows that are no products of their own.

    A row is a variant where the cell in the column `where` is like `value`; not if its `parent`
    column names no other row of the file. `children` is a column in which a product lists the ids
    of its variants, in the group of `child`. With `repeated`, rows with the same id are one
    product: the first with a title describes it, and the options of all are gathered.
    """

    where: str = ""
    value: str = ""
    parent: str = ""
    children: str = ""
    child: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Profile:
    """A format by its columns.

    `signatures` are sets of patterns; a header has the format if every pattern of one set matches
    a name. `fields` gives patterns for a field, the best first; an empty cell gives way to the
    next column, and fields in `joined` are made of all of them. `attributes` matches columns that
    are attributes, called by the group `name`; `pairs` are the patterns of columns with an
    attribute's name and its value, numbered by their group; `listed` is a column of
    `name=value,…`. Tags are split at any of `separators` and joined by `joiner`, a comma within a
    tag written after `escape`.
    """

    name: str
    signatures: tuple[tuple[str, ...], ...]
    fields: Mapping[str, tuple[str, ...]]
    joined: frozenset[str] = frozenset()
    attributes: str = ""
    pairs: tuple[str, str] | None = None
    listed: str = ""
    separators: str = ","
    joiner: str = ", "
    escape: str = ""
    html: bool = True
    variants: Variants = field(default_factory=Variants)

    def recognises(self, header: Iterable[str]) -> bool:
        """Whether these are the columns of this format."""
        names = [fold(name) for name in header]
        return any(
            all(any(re.fullmatch(pattern, name) for name in names) for pattern in signature)
            for signature in self.signatures
        )

    def synonyms(self, header: Iterable[str]) -> Synonyms:
        """The folded names in this header that may be each field, the best first."""
        names = [fold(name) for name in header]
        return {
            each: tuple(name for p in patterns for name in names if re.fullmatch(p, name))
            for each, patterns in self.fields.items()
        }


_CHINESE = "，、；,;|"

SHOPIFY = Profile(
    name="Shopify export",
    signatures=(("title", "handle|url_handle", r"body_\(html\)|option1_name|option1_value"),),
    fields={
        "id": ("handle", "url_handle"),
        "title": ("title",),
        "description": (r"body_\(html\)", "description"),
        "brand": ("vendor",),
        "category": ("type", "product_category"),
        "tags": _TAGS,
    },
    pairs=(r"option([123])_name", r"option([123])_value"),
    variants=Variants(repeated=True),
)

WOOCOMMERCE = Profile(
    name="WooCommerce export",
    signatures=(
        ("type", "sku", "name", r"published|is_featured\?|visibility_in_catalog|in_stock\?"),
    ),
    fields={
        "id": ("id", "sku"),
        "title": ("name",),
        "description": ("short_description", "description"),
        "brand": ("brands?",),
        "category": ("categories",),
        "tags": _TAGS,
    },
    joined=frozenset({"description"}),
    pairs=(r"attribute_(\d+)_name", r"attribute_(\d+)_value\(s\)"),
    escape="\\",
    variants=Variants(where="type", value=r"(?:.*,)?\s*variation\s*(?:,.*)?", parent="parent"),
)

MERCHANT = Profile(
    name="Google Merchant feed",
    signatures=(("id", "title", "link", "image_link|availability|price|google_product_category"),),
    fields={
        "id": ("id",),
        "title": ("title",),
        "description": ("description",),
        "brand": ("brand",),
        "category": ("product_type", "google_product_category"),
        "group": ("item_group_id",),
        "tags": _TAGS,
    },
    attributes=r"(?P<name>colou?r|size|material|pattern|gender|age[_ ]group|size[_ ]type"
    r"|product[_ ](?:detail|highlight).*)",
    html=False,
)

AKENEO = Profile(
    name="Akeneo export",
    signatures=(
        (
            "sku|identifier|code|uuid",
            "family|family_variant",
            "categories",
            "enabled|groups|parent",
        ),
    ),
    fields={
        "id": ("sku", "identifier", "code", "uuid"),
        "title": (f"name{_LOCALE}", f"title{_LOCALE}", f"label{_LOCALE}"),
        "description": (f"description{_LOCALE}", f"short_description{_LOCALE}"),
        "brand": (f"brand{_LOCALE}", "manufacturer"),
        "category": ("categories", "family"),
        "group": ("parent",),
        "tags": (f"tags?{_LOCALE}",),
    },
    attributes=r"(?!(?:enabled|groups|parent|categories|family|family_variant|uuid|identifier"
    r"|(?:picture|image|photo|price).*"
    r"|.*-(?:groups|products|product_models|product_uuids|quantity|unit))$)(?P<name>.+)",
    joiner=",",
)

AMAZON = Profile(
    name="Amazon flat file",
    signatures=((r"item_sku|contribution_sku#1\.value", r"item_name(?:[\[#].*)?"),),
    fields={
        "id": ("item_sku", r"contribution_sku#1\.value"),
        "title": (r"item_name(?:[\[#].*)?",),
        "description": (r"product_description(?:[\[#].*)?", r"bullet_point\d*(?:[\[#].*)?"),
        "brand": ("brand_name", r"brand(?:[\[#].*)?"),
        "category": (
            *("feed_product_type", r"product_type#1\.value", "item_type"),
            r"item_type_keyword(?:[\[#].*)?",
        ),
        "group": ("parent_sku", r"child_parent_sku_relationship(?:[\[#].*)?\.parent_sku"),
        "tags": _TAGS,
    },
    joined=frozenset({"description"}),
    attributes=r"(?P<name>colou?r|size|style|pattern|department|target_gender|target_audience"
    r"|(?:(?:outer|inner)_)?material|fabric|special_features?|theme|occasion)"
    r"(?:_name|_type|_description)?\d*(?:[\[#].*\.value)?",
)

EBAY = Profile(
    name="eBay file",
    signatures=(
        (r"\*?action\(.*", r"\*?title"),
        ("item_number|item_?id", "title", r"custom_?label(?:_\(sku\))?|variation_details"),
    ),
    fields={
        "id": ("item_number|item_?id", r"custom_?label(?:_\(sku\))?"),
        "title": (r"\*?title",),
        "description": (r"\*?description",),
        "brand": (r"\*?c:brand",),
        "category": ("ebay_category_1_name", "category_name"),
        "tags": _TAGS,
    },
    attributes=r"\*?C:(?!Brand$)(?P<name>.+)",
    variants=Variants(where="relationship", value="variation", repeated=True),
)

MAGENTO = Profile(
    name="Magento export",
    signatures=(("sku", "attribute_set_code|_attribute_set", "product_type|_type", "name"),),
    fields={
        "id": ("sku",),
        "title": ("name",),
        "description": ("short_description", "description"),
        "brand": ("brand", "manufacturer"),
        "category": ("categories",),
        "tags": ("tags", "product_tags"),
    },
    joined=frozenset({"description"}),
    listed="additional_attributes",
    joiner=",",
    variants=Variants(
        where="store_view_code",
        value=".+",
        parent="sku",
        children="configurable_variations",
        child=r"(?:^|\|)sku=([^,|]+)",
    ),
)

TAOBAO = Profile(
    name="Taobao (淘宝) export",
    signatures=(
        ("宝贝名称|宝贝标题", "宝贝类目|宝贝描述|宝贝价格|宝贝属性|商家编码|商品标签|宝贝标签"),
    ),
    fields={
        "id": ("宝贝id|商品id|数字id", "商家编码"),
        "title": ("宝贝名称|宝贝标题",),
        "description": ("宝贝卖点", "宝贝描述"),
        "brand": ("品牌",),
        "category": ("宝贝分类", "宝贝类目", "店铺类目"),
        "tags": ("商品标签", "宝贝标签", "标签", *_TAGS),
    },
    joined=frozenset({"description"}),
    separators=_CHINESE,
    joiner="，",
)

YOUZAN = Profile(
    name="Youzan (有赞) export",
    signatures=(
        ("商品标题|商品名称", "商品分组|商品标签", "商品规格|规格.*|商品编码|商品id|商品条码"),
    ),
    fields={
        "id": ("商品id", "商品编码", "商品条码"),
        "title": ("商品标题|商品名称",),
        "description": ("商品卖点|分享描述", "商品描述|商品详情"),
        "brand": ("品牌|商品品牌",),
        "category": ("商品类目", "商品分组"),
        "tags": ("商品标签", "标签", *_TAGS),
    },
    joined=frozenset({"description"}),
    attributes=r"(?P<name>商品规格|规格)",
    separators=_CHINESE,
    joiner="，",
    variants=Variants(repeated=True),
)

PROFILES: tuple[Profile, ...] = (
    *(SHOPIFY, WOOCOMMERCE, MAGENTO, AKENEO, AMAZON, EBAY, MERCHANT, TAOBAO, YOUZAN),
)


def recognise(header: Sequence[str], profiles: Iterable[Profile] = PROFILES) -> Profile | None:
    """The format that has these columns, if any of them is known."""
    return next((profile for profile in profiles if profile.recognises(header)), None)
