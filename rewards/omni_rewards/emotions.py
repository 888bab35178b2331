# SPDX-License-Identifier: Apache-2.0
"""
Words for emotions: which of them name the same one, and the label sets of DFEW, MAFW and RAVDESS.

The table joins word forms (anger, angry, angrily) and close synonyms (furious), not neighbours on a wheel of emotions:
worried is not afraid. It is data; `AnswerReward(aliases=…)` adds to it.
"""

from collections.abc import Mapping

from ._written import normalize, read_label

EMOTION_LABEL_SETS: dict[str, tuple[str, ...]] = {
    "DFEW": ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),
    "MAFW": (
        *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
        *("contempt", "anxiety", "helplessness", "disappointment"),
    ),
    "RAVDESS": ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"),
}

# One emotion a line: the name of its group, then everything that reads as it.
_GROUPS = """
angry: anger, angrily, mad, furious, fury, rage, raging, enraged, irate, wrath, wrathful, outrage, outraged, infuriated,
    indignant, indignation, resentful, resentment, hostile, hostility, 愤怒, 生气, 气愤
irritated: irritation, irritable, annoyed, annoyance, impatient, impatience, agitated, agitation, exasperated,
    exasperation, displeased, displeasure, 烦躁, 不耐烦, 恼火
happy: happiness, happily, joy, joyful, joyous, glad, gladness, cheerful, cheerfulness, delighted, delight, pleased,
    pleasure, merry, elated, elation, 开心, 快乐, 高兴, 喜悦
excited: excitement, thrilled, exhilarated, exhilaration, enthusiastic, enthusiasm, eager, eagerness, 激动, 兴奋
amused: amusement, playful, playfulness, entertained
satisfied: satisfaction, content, contented, contentment, fulfilled, gratified, gratification, 满足, 满意
relieved: relief, reassured, 欣慰, 放心
proud: pride, triumphant, 自豪, 骄傲
grateful: gratitude, thankful, thankfulness, appreciative, 感激
moved: touched, 感动
affectionate: affection, loving, love, tender, tenderness, warm, warmth, caring
hopeful: hope, optimistic, optimism, expectant, expectation, anticipation, anticipating, 期待
confident: confidence, self-assured, assured, 自信
sad: sadness, sadly, sorrow, sorrowful, unhappy, unhappiness, grief, grieving, grieved, mournful, heartbroken, upset,
    depressed, depression, dejected, dejection, gloomy, downcast, melancholy, melancholic, 悲伤, 难过, 伤心
lonely: loneliness, 孤独
disappointed: disappointment, let down, dissatisfied, dissatisfaction, discouraged, discouragement, 失望
helpless: helplessness, powerless, powerlessness, resigned, resignation, 无助, 无奈
desperate: desperation, despair, despairing, hopeless, hopelessness, 绝望
hurt: wronged, aggrieved, grievance, 委屈
afraid: fear, fearful, fearfully, scared, frightened, fright, terrified, terror, horrified, horror, panicked, panic,
    恐惧, 害怕
anxious: anxiety, worried, worry, worrying, concerned, concern, nervous, nervousness, uneasy, uneasiness, apprehensive,
    apprehension, tense, tension, stressed, 焦虑, 担心, 紧张
surprised: surprise, surprising, astonished, astonishment, amazed, amazement, shocked, shock, startled, stunned, 惊讶,
    吃惊, 惊喜
disgusted: disgust, disgusting, revolted, revulsion, repulsed, repulsion, loathing, aversion, 厌恶, 恶心
contemptuous: contempt, scornful, scorn, disdainful, disdain, despising, mocking, mockery, sarcastic, sarcasm, 轻蔑, 鄙视
jealous: jealousy, envious, envy, 嫉妒
ashamed: shame, humiliated, humiliation, 羞愧
embarrassed: embarrassment, awkward, awkwardness, 尴尬
shy: shyness, bashful, 害羞
guilty: guilt, remorseful, remorse, regretful, regret, apologetic, 内疚, 愧疚, 后悔
confused: confusion, puzzled, puzzlement, bewildered, bewilderment, perplexed, perplexity, 困惑, 疑惑
doubtful: doubt, skeptical, sceptical, skepticism, scepticism, suspicious, suspicion, distrustful, distrust, 怀疑
curious: curiosity, interested, interest, intrigued, 好奇
serious: seriousness, solemn, earnest, stern, 严肃, 认真
calm: calmness, calmly, peaceful, relaxed, serene, serenity, composed, tranquil, 平静, 冷静
neutral: neutrality, no emotion, emotionless, expressionless, indifferent, indifference, 中性
bored: boredom, uninterested, 无聊
tired: tiredness, exhausted, exhaustion, fatigued, fatigue, weary, weariness, 疲惫
"""


def _read_groups() -> dict[str, str]:
    groups: dict[str, str] = {}
    for line in _GROUPS.replace("\n    ", " ").strip().splitlines():
        name, _, aliases = line.partition(":")
        groups |= dict.fromkeys((name, *(normalize(alias) for alias in aliases.split(","))), name)
    return groups


EMOTION_ALIASES: Mapping[str, str] = _read_groups()


def emotion_of(word: str, aliases: Mapping[str, str] | None = None) -> str:
    """
    The name under which `word` is compared: that of its group, or the word itself where no group has it.

    `aliases` comes first and may name a group, or any word of one.

    >>> emotion_of("Anger."), emotion_of("angry"), emotion_of("ecstatic"), emotion_of("ecstatic", {"ecstatic": "joy"})
    ('angry', 'angry', 'ecstatic', 'happy')
    """
    word = read_label(word)
    word = (aliases or {}).get(word, word)
    return EMOTION_ALIASES.get(word, word)
