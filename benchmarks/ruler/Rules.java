import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import software.amazon.event.ruler.Machine;

/** Rules and events, a JSON text a line, through aws event-ruler: a line of figures as JSON. */
public class Rules {
    public static void main(String[] args) throws Exception {
        List<String> rules = Files.readAllLines(Path.of(args[0]), StandardCharsets.UTF_8);
        List<String> events = Files.readAllLines(Path.of(args[1]), StandardCharsets.UTF_8);
        double seconds = Double.parseDouble(args[2]);
        Machine machine = new Machine();
        long began = System.nanoTime();
        for (int n = 0; n < rules.size(); n++) {
            machine.addRule("r" + n, rules.get(n));
        }
        double build = (System.nanoTime() - began) / 1e9;
        long hits = 0;
        double best = Double.MAX_VALUE;
        began = System.nanoTime();
        while (best == Double.MAX_VALUE || (System.nanoTime() - began) / 1e9 < seconds) {
            hits = 0;
            long pass = System.nanoTime();
            for (String event : events) {
                hits += machine.rulesForJSONEvent(event).size();
            }
            best = Math.min(best, (System.nanoTime() - pass) / 1e9 / events.size());
        }
        began = System.nanoTime();
        machine.addRule("one more", args[3]);
        double add = (System.nanoTime() - began) / 1e6;
        System.gc();
        Runtime runtime = Runtime.getRuntime();
        double held = (runtime.totalMemory() - runtime.freeMemory()) / 1048576.0;
        System.out.printf(
            "{\"events/s\": %f, \"build s\": %f, \"add ms\": %f, \"MB\": %f, \"hits\": %d}%n",
            1 / best, build, add, held, hits);
    }
}
