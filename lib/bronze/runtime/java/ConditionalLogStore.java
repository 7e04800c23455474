package bronze;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FSDataOutputStreamBuilder;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * Delta's log in S3. A commit is a conditional request that S3 refuses if the file exists, so that drivers on all
 * machines, and deltalake, exclude one another. Delta's own log store for S3 excludes only writers in the same JVM.
 */
public class ConditionalLogStore extends HadoopFileSystemLogStore {
    public ConditionalLogStore(Configuration conf) {
        super(conf);
    }

    @Override
    public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration conf) throws IOException {
        StringBuilder text = new StringBuilder();
        while (actions.hasNext()) {
            text.append(actions.next()).append('\n');
        }
        byte[] content = text.toString().getBytes(StandardCharsets.UTF_8);
        FileSystem fileSystem = path.getFileSystem(conf);
        try {
            put(fileSystem, path, content, overwrite);
        } catch (IOException failure) {
            // The answer to a request that took effect may be lost; no two commits have the same content.
            byte[] found = overwrite ? null : readAfter(failure, fileSystem, path);
            if (found == null) {
                throw failure;
            }
            if (!Arrays.equals(found, content)) {
                throw new FileAlreadyExistsException(path.toString());
            }
        }
    }

    private static void put(FileSystem fileSystem, Path path, byte[] content, boolean overwrite) throws IOException {
        FSDataOutputStreamBuilder<?, ?> builder = fileSystem.createFile(path);
        builder.overwrite(overwrite).recursive();
        if (!overwrite) {
            builder.must("fs.option.create.conditional.overwrite", true);
        }
        FSDataOutputStream stream = (FSDataOutputStream) builder.build();
        try {
            stream.write(content);
        } catch (IOException | RuntimeException failure) {
            stream.abort(); // closing it would make a part of the commit visible
            throw failure;
        }
        stream.close();
    }

    private static byte[] readAfter(IOException failure, FileSystem fileSystem, Path path) {
        try (FSDataInputStream stream = fileSystem.open(path)) {
            return stream.readAllBytes();
        } catch (IOException unreadable) {
            failure.addSuppressed(unreadable);
            return null;
        }
    }

    @Override
    public Boolean isPartialWriteVisible(Path path, Configuration conf) {
        return false;
    }
}
